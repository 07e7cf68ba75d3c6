"""How the server stops, whatever parses its HTTP."""

from __future__ import annotations

import signal
import subprocess
import sys

import httpx

ENDLESS = """
import asyncio
import socket

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from leyline_agent.serving.server import run

app = FastAPI()


@app.get("/")
async def stream():
    async def ticks():
        while True:
            yield b"tick\\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(ticks())


run._GRACE = 1
with socket.create_server(("127.0.0.1", 0)) as bound:
    try:
        run.run(app, bound, lambda: print(bound.getsockname()[1], flush=True))
    except KeyboardInterrupt:
        pass
"""


def test_an_answer_that_outlasts_the_grace_is_told_in_one_line() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}"
            with httpx.stream("GET", url) as response:
                lines = response.iter_lines()
                assert next(lines) == "tick"
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "Cancel 1 running task(s)" in err
    assert "Traceback" not in err
    assert "Exception" not in err
