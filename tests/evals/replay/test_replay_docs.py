"""docs/replay.md, held against the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import typer.main
from pydantic import BaseModel

from leyline_evals import cli
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.report import ReplayReport, Spread

DOCUMENT = Path(__file__).parents[3] / "docs" / "replay.md"
PLACES = {"arms": "<arm>", "fidelity": "<name>", "reasons": "<reason>", "modes": "<mode>"}


def section(title: str) -> str:
    text = DOCUMENT.read_text()
    return re.split(r"^#+ ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def documented(text: str) -> list[str]:
    """The names in the first column of a table, without its head."""
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def fields(kind: Any, prefix: str, name: str = "") -> Iterator[str]:
    """The paths of a report: lists as `name[]`, dictionaries as `name.<key>`; spreads whole."""
    if get_origin(kind) in (Union, UnionType):
        [kind] = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is list:
        yield from fields(get_args(kind)[0], f"{prefix}[]")
    elif get_origin(kind) is dict:
        yield from fields(get_args(kind)[1], f"{prefix}.{PLACES.get(name, '<arm>')}")
    elif isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Spread:
        for inner, field in kind.model_fields.items():
            yield from fields(field.annotation, f"{prefix}.{inner}" if prefix else inner, inner)
    else:
        yield prefix


def test_the_json_is_documented() -> None:
    assert sorted(documented(section("JSON"))) == sorted(fields(ReplayReport, ""))


def test_the_arms_are_documented() -> None:
    assert documented(section("The arms")) == [arm.value for arm in Arm]


def test_the_options_are_documented() -> None:
    head = DOCUMENT.read_text().split("\n## ")[0]
    named = {name.split()[0] for name in documented(head) if name.startswith("--")}
    app = typer.Typer()
    app.command()(cli.replay)
    command = typer.main.get_command(app)
    options = {name for p in command.params for name in p.opts if name.startswith("--")}
    options -= {"--install-completion", "--show-completion"}
    assert named == options
    assert "files" in inspect.signature(cli.replay).parameters
