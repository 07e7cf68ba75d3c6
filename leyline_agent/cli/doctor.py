"""`leyline doctor`: what a bug report needs, and what stands in the way on this machine."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.text import Text

from leyline_agent.cli.checks import CHECKS, Check, Status

__all__ = ["DoctorReport", "command", "report"]

_COLOURS: dict[Status, str] = {"ok": "green", "warn": "yellow", "fail": "red"}
_ORDER: tuple[Status, ...] = ("ok", "warn", "fail")


class DoctorReport(BaseModel):
    """What `leyline doctor --json` prints; `status` is the worst of the checks."""

    format: Literal["leyline-doctor"] = "leyline-doctor"
    version: Literal[1] = 1
    status: Status
    checks: list[Check]


def report() -> DoctorReport:
    """Run every check."""
    checks = [finding for check in CHECKS for finding in check()]
    return DoctorReport(status=max((c.status for c in checks), key=_ORDER.index), checks=checks)


def command(
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Look at this machine and installation; exit status 1 when something must be mended.

    Example: `leyline doctor --json`

    A line a check: *ok*, *warn* (works, but not as well as it could) or *fail*, with what to do
    behind an arrow. Paste it into a bug report.
    """
    found = report()
    if json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        _print(found.checks)
    raise typer.Exit(1 if found.status == "fail" else 0)


def _print(checks: list[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = Text(f"{check.status:4}", style=_COLOURS[check.status])
        console.print(mark, f"{check.name:{width}} ", Text(check.detail))
        if check.todo:
            console.print(" " * (width + 7) + "-> ", Text(check.todo), sep="")
