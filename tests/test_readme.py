"""The README's snippets, run as they stand, from the root of the checkout."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from leyline_agent import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


COMMANDS = [line[2:] for block in blocks("console") for line in block.splitlines()]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("source", blocks("python"), ids=lambda text: text.split("\n", 1)[0])
def test_python_snippets_run_and_print(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(source, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out


@pytest.mark.model
@pytest.mark.usefixtures("embedded_gguf")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *arguments = shlex.split(command)
    assert program == "leyline"
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    assert capsys.readouterr().out


def test_there_are_three_uses() -> None:
    assert README.count("\n**") == 3
    assert len(blocks("python")) == 2
    assert COMMANDS
