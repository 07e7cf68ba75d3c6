"""`leyline serve --engine NAME`: which engine is started, with what, and what is refused."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import pytest

from leyline_agent.cli import checks, engines, main
from leyline_agent.cli.checks import Check
from leyline_agent.cli.engines import Serving, find
from leyline_agent.cli.serve import OWN
from leyline_agent.errors import LeylineError

served: list[Serving] = []


def serve(serving: Serving) -> None:
    """This module stands for an engine."""
    served.append(serving)


def check() -> Check:
    """Likewise."""
    return Check(name="toy", status="ok", detail="there")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[Serving]:
    class Point(EntryPoint):
        def load(self) -> Any:
            return __import__("sys").modules[__name__]

    points = {"toy": Point("toy", __name__, engines.GROUP)}
    monkeypatch.setattr(engines, "announced", lambda: points)
    served.clear()
    return served


def run(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", *arguments])
    assert stop.value.code in (0, None)


def refused(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["serve", *arguments])
    assert stop.value.code == 2


def test_an_engine_is_given_what_was_asked(toy: list[Serving]) -> None:
    line = "--engine toy --model m --name n --port 1 --python p --print -- --tensor-parallel-size 2"
    run(*line.split())
    arguments = ("--tensor-parallel-size", "2")
    assert toy == [Serving("m", "n", "127.0.0.1", 1, "p", True, arguments)]


@pytest.mark.parametrize(
    "option", [("--dtype", "float32"), ("--mode-floor", "repair"), ("--kv-gib", "2.0"), ("--json",)]
)
def test_options_of_our_own_engine_are_refused(
    toy: list[Serving], option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused("--engine", "toy", *option)
    assert f"{' '.join(option)} is an option of our own" in capsys.readouterr().err
    assert not toy


@pytest.mark.parametrize("option", [("--print",), ("--python", "p"), ("--", "--more")])
def test_our_own_engine_takes_nothing_for_others(
    option: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused("--engine", OWN, *option)
    assert "--engine" in capsys.readouterr().err


def test_an_engine_that_nobody_announces() -> None:
    with pytest.raises(LeylineError, match="'nix'.*leyline.*vllm"):
        find("nix")


def test_the_doctor_asks_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("toy", f"{__name__}", engines.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: __import__("sys").modules[__name__])
    monkeypatch.setattr(checks.importlib.metadata, "entry_points", lambda group: [point])
    assert list(checks.engines()) == [check()]


def test_an_engine_that_cannot_be_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("toy", "no_such_module_of_ours", engines.GROUP)
    monkeypatch.setattr(checks.importlib.metadata, "entry_points", lambda group: [point])
    (found,) = checks.engines()
    assert (found.name, found.status) == ("toy", "warn")
    assert "no_such_module_of_ours" in found.detail
