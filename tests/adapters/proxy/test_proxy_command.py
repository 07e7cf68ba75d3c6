"""`leyline proxy` as a user runs it: what it prints, how it stops, what it refuses."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import StreamingResponse

from leyline_adapters.proxy.command import ProxyReport
from leyline_agent.cli import main

ROOT = Path(__file__).resolve().parents[3]
MAIN = [sys.executable, "-c", "from leyline_agent.cli import main; main()", "proxy"]


@contextmanager
def running(*options: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*MAIN, "--port", "0", *options], stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen[str]) -> ProxyReport:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return ProxyReport.model_validate_json(line)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_proxies_and_stops(
    provider: Any, task: Any, tmp_path: Path, how: signal.Signals
) -> None:
    policies = ["-p", "keep_last:n=1", "-p", "drop_failed_calls"]
    more = ["--journal", str(tmp_path), "--recall", "--timing", "auto", "--mode-floor", "repair"]
    with running("--upstream", provider.url, *policies, *more, "--json") as process:
        report = ready(process)
        assert (report.adapter, report.upstream, report.pid) == (
            "openai",
            provider.url,
            process.pid,
        )
        assert report.policy == "keep_last:n=1+drop_failed_calls"
        tools = [{"type": "function", "function": {"name": "bash", "parameters": {}}}]
        answer = httpx.post(
            f"{report.url}/v1/chat/completions", json={"messages": task, "tools": tools}
        )
        assert answer.status_code == 200
        assert len(provider.requests[-1]["tools"]) == 2
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
    assert out == ""  # the one line was all
    assert "Traceback" not in err
    assert process.returncode == (0 if how is signal.SIGINT else -signal.SIGTERM)
    [journal] = tmp_path.rglob("*.jsonl")
    assert json.loads(journal.read_text().splitlines()[0])["mode_floor"] == "repair"


def test_it_stops_although_a_client_streams(provider: Any, task: Any) -> None:
    async def endless(request: Any, body: bytes) -> Any:
        async def send() -> Any:
            while True:
                yield b'data: {"choices": [{"index": 0, "delta": {"content": "x"}}]}\n\n'
                await asyncio.sleep(0.01)

        return StreamingResponse(send(), media_type="text/event-stream")

    with running("--upstream", provider.url, "--json") as process:
        report = ready(process)
        provider.handle = endless
        body = {"messages": task, "stream": True}
        url = f"{report.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=body) as response:
            pieces = response.iter_raw()
            next(pieces)
            process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.RemoteProtocolError):
                list(pieces)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in err


def test_the_banner_has_a_command_that_works(provider: Any) -> None:
    with running("--upstream", provider.url) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "curl" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        banner = "".join(lines)
        assert f"{provider.url} is proxied at http://127.0.0.1:" in banner
        found = re.search(r"curl (\S+)", banner)
        assert found is not None
        assert httpx.get(found[1]).json()["status"] == "ok"


def test_an_upstream_may_come_later(provider: Any, task: Any) -> None:
    with running("--upstream", "http://127.0.0.1:9", "--json") as process:
        report = ready(process)
        assert report.adapter == "auto"
        body = {"messages": task}
        assert httpx.post(f"{report.url}/v1/chat/completions", json=body).status_code == 502


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The last line on standard error of a command that is refused."""
    with pytest.raises(SystemExit) as end:
        main(["proxy", "--port", "0", *options])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "ftp://x/v1", "", "http://", "https://api.x.com/v1?key=1"]
)
def test_an_upstream_that_is_none(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert "--upstream" in refused(capsys, "--upstream", url)


def test_what_cannot_be_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    upstream = ("--upstream", "http://127.0.0.1:9")
    file = tmp_path / "file"
    file.write_text("")
    assert "no policy named 'nope'" in refused(capsys, *upstream, "-p", "nope")
    assert "is a file" in refused(capsys, *upstream, "--journal", str(file))
    below = str(file / "x")
    assert f"{file} is a file" in refused(capsys, *upstream, "--journal", below)
    assert "timing 'soon'" in refused(capsys, *upstream, "--timing", "soon")


def test_without_its_extra_it_says_what_to_install() -> None:
    code = f"import sys; sys.modules['aiohttp'] = None; {MAIN[2]}"
    command = [sys.executable, "-c", code, "proxy", "--upstream", "http://x", "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'leyline-agent[proxy]'" in done.stderr


def test_the_json_is_documented() -> None:
    text = (ROOT / "docs" / "proxy.md").read_text()
    part = text.split("## Starting it", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", part, re.M) == list(ProxyReport.model_fields)


def test_every_header_is_documented() -> None:
    folder = ROOT / "adapters" / "leyline_adapters" / "proxy"
    source = "".join(file.read_text() for file in folder.glob("*.py"))
    used = set(re.findall(r'"(Leyline-[A-Z][\w-]+)"', source))
    text = (ROOT / "docs" / "proxy.md").read_text()
    assert used <= set(re.findall(r"^\| `(Leyline-[\w-]+)` \|", text, re.M))
