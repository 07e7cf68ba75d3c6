"""`leyline serve` as a user runs it: what it prints, how it stops, what it refuses."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from leyline_agent.cli import main
from leyline_agent.cli.serve import ServeReport, listen
from leyline_agent.errors import LeylineError

ROOT = Path(__file__).resolve().parents[3]
MAIN = [sys.executable, "-c", "from leyline_agent.cli import main; main()", "serve"]


@contextmanager
def serving(*options: str) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [*MAIN, "--port", "0", *options], stdout=pipe, stderr=pipe, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def ready(process: subprocess.Popen[str]) -> ServeReport:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return ServeReport.model_validate_json(line)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_stops(tiny_folder: Path, how: signal.Signals) -> None:
    options = ("--model", str(tiny_folder), "--json", "--kv-gib", "0.01", "--mode-floor", "repair")
    with serving(*options, "--device", "cpu") as process:
        report = ready(process)
        assert report.device == "cpu"
        assert (report.model, report.context_length, report.tools) == ("tiny", 4096, "fallback")
        assert report.splice
        assert report.pid == process.pid
        [model] = httpx.get(f"{report.url}/v1/models").json()["data"]
        assert model["leyline"]["mode_floor"] == "repair"
        body = {"messages": [{"role": "user", "content": "Read the file."}], "max_tokens": 4}
        answer = httpx.post(f"{report.url}/v1/chat/completions", json=body)
        assert answer.status_code == 200
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
        assert out == ""  # the one line was all
        assert '"POST /v1/chat/completions HTTP/1.1" 200' in err
        assert "Traceback" not in err
        assert process.returncode == (0 if how is signal.SIGINT else -signal.SIGTERM)


def test_it_stops_although_a_client_streams(tiny_folder: Path) -> None:
    with serving("--model", str(tiny_folder), "--json", "--kv-gib", "0.01") as process:
        report = ready(process)
        body = {"prompt": [5, 6, 7], "max_tokens": 4000, "stream": True}
        with httpx.stream("POST", f"{report.url}/v1/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert "Traceback" not in err


def test_the_banner_has_a_command_that_works(tiny_folder: Path) -> None:
    options = ("--model", str(tiny_folder), "--name", "mine", "--dtype", "float32")
    with serving(*options) as process:
        assert process.stdout is not None
        lines = []
        while not lines or "-d '" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        banner = "".join(lines)
        assert "mine is served at http://127.0.0.1:" in banner
        assert "edits are spliced" in banner
        found = re.search(r"curl (\S+) .*?-d '(.*)'", banner, re.S)
        assert found is not None
        headers = {"content-type": "application/json"}
        answer = httpx.post(found[1], content=found[2], headers=headers)
        assert answer.json()["model"] == "mine"


def test_a_port_in_use_is_told_before_the_model_loads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = refused(capsys, "--port", str(port), "--model", "no/such/model")
    assert said.startswith(f"leyline: port {port} of 127.0.0.1 is in use;")
    assert "--port" in said


def test_what_cannot_be_loaded(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folder: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing more")
    tiny = ("--model", str(tiny_folder))
    assert "no model 'nothing-here'" in refused(capsys, "--model", "nothing-here")
    assert "broken.gguf" in refused(capsys, "--model", str(broken))
    assert "at least one slot" in refused(capsys, *tiny, "--kv-gib", "0.0000001")
    assert "unknown dtype 'int3'" in refused(capsys, *tiny, "--dtype", "int3")
    assert "no device 'cuda:99' here" in refused(capsys, *tiny, "--device", "cuda:99")
    told = refused(capsys, *tiny, "--fidelity-report", str(tiny_folder / "config.json"))
    assert "is no report of leyline fidelity" in told


@pytest.mark.parametrize("size", ["inf", "nan", "-1", "1e300"])
def test_memory_that_is_no_size(capsys: pytest.CaptureFixture[str], size: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["serve", "--port", "0", "--kv-gib", size])
    assert end.value.code == 2
    assert "Invalid value for '--kv-gib'" in capsys.readouterr().err


def refused(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The last line on standard error of a command that is refused."""
    with pytest.raises(SystemExit) as end:
        main(["serve", "--port", "0", *options])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    return err.splitlines()[-1]


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7"])
def test_an_address_that_is_not_ours(host: str) -> None:
    with pytest.raises(LeylineError, match=f"cannot listen on {host}:0"):
        listen(host, 0)


def test_a_forbidden_port(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(self: socket.socket, address: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", forbidden)
    with pytest.raises(LeylineError, match="port 80 may not be used by this user"):
        listen("127.0.0.1", 80)


def test_the_json_is_documented() -> None:
    text = (ROOT / "docs" / "server.md").read_text()
    part = text.split("## Starting it", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", part, re.M) == list(ServeReport.model_fields)
