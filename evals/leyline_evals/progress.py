"""How far long work is: one bar on standard error, drawn on terminals alone."""

from __future__ import annotations

from typing import Any, Self

import rich.progress
from rich.console import Console

__all__ = ["OneBar"]


class OneBar:
    """A bar, drawn while its block runs.

    Args:
        columns: what it shows between a spinner and the time.
        description: what goes on at first.
        task: the bar's `total`, `completed` and fields of its own.
    """

    def __init__(
        self, *columns: rich.progress.ProgressColumn, description: str = "", **task: Any
    ) -> None:
        self.console = Console(stderr=True)
        self._bar = rich.progress.Progress(
            rich.progress.SpinnerColumn(),
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task(description, **task)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, what: str) -> None:
        """Tell what is going on."""
        self.show(description=what)

    def show(self, **changed: Any) -> None:
        """Draw it with something changed."""
        self._bar.update(self._task, **changed)
