"""What the commands share: what is to be installed, and what Ctrl-C leaves. Light to import."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from leyline_agent.errors import LeylineError

__all__ = ["RESUME", "interruptible", "serving"]

RESUME = "the same command with --resume goes on"


@contextmanager
def interruptible(kept: Path | None, what: str, then: str = RESUME) -> Iterator[None]:
    """Says after Ctrl-C what became of what was done.

    Args:
        kept: where it is; None where it is nowhere.
        what: what is kept there.
        then: how the rest is had.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        left = f"{what} in {kept}: {then}" if kept else "nothing is kept without --json OUT"
        typer.echo(f"leyline: stopped; {left}", err=True)
        raise typer.Exit(130) from error


@contextmanager
def serving() -> Iterator[None]:
    """Says what to install where the engine's libraries are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise LeylineError(
            f"this command needs {error.name}; pip install 'leyline-agent[serve]'"
        ) from error
