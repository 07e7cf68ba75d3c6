"""The `leyline` command as a whole: loading of sub-commands, errors, speed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from leyline_agent import __version__, cli
from leyline_agent.errors import PolicyError


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, cli.GROUP)


@pytest.fixture
def announce(monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    """The table of sub-commands, to which a test may add its own."""
    table = cli.commands()
    monkeypatch.setattr(cli, "commands", lambda: table)
    return table


def fails() -> None:
    """Fail with an error of two lines."""
    raise PolicyError("no such policy\n  'keep_al'; did you mean keep_all?")


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    return int(stop.value.code or 0)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"leyline {__version__}\n"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--help") == 0
    out = capsys.readouterr().out
    assert {"doctor", "models"} <= cli.commands().keys()
    for name in cli.commands():
        assert f" {name} " in out


@pytest.mark.parametrize("name", ["models fetch", *cli.commands()])
def test_every_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*name.split(), "--help") == 0
    assert re.search(rf"Example: leyline {name} \S", capsys.readouterr().out)


@pytest.mark.parametrize("name", cli.commands())
def test_every_command_loads(name: str) -> None:
    assert callable(cli.commands()[name].load())


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("modles") == 2
    assert "models" in capsys.readouterr().err


def test_own_errors_are_one_line_and_status_2(
    announce: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str]
) -> None:
    announce["fails"] = point("fails", f"{__name__}:fails")
    assert run("fails") == 2
    captured = capsys.readouterr()
    assert captured.err == "leyline: no such policy 'keep_al'; did you mean keep_all?\n"
    assert captured.out == ""


def test_the_debug_variable_shows_the_traceback(
    announce: dict[str, EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce["fails"] = point("fails", f"{__name__}:fails")
    monkeypatch.setenv("LEYLINE_DEBUG", "1")
    with pytest.raises(PolicyError):
        cli.main(["fails"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package.cli:command", "No module named 'no_such_package'"),
        ("leyline_agent.errors:no_such_function", "no_such_function"),
    ],
)
def test_a_broken_command_is_named_and_harms_no_other(
    announce: dict[str, EntryPoint], capsys: pytest.CaptureFixture[str], value: str, reason: str
) -> None:
    announce["broken"] = point("broken", value)
    assert run("broken", "FILE", "--flag") == 2
    err = capsys.readouterr().err
    assert "'broken'" in err
    assert reason in err
    assert run("--help") == 0
    assert "broken" in capsys.readouterr().out
    assert run("models") == 0


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from leyline_agent.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'litellm', 'openai', 'transformers'} & sys.modules.keys()\n"
        "print(heavy or '', file=sys.stderr, end='')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "Usage: leyline" in done.stdout


def test_the_installed_command_runs() -> None:
    command = Path(sys.executable).with_name("leyline")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"leyline {__version__}\n"
