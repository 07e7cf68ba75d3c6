"""Engines other than our own that `leyline serve` can start, found by entry points."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

from leyline_agent.cli.checks import ENGINES, Check
from leyline_agent.errors import LeylineError

__all__ = ["GROUP", "Serving", "ServingEngine", "announced", "find"]

GROUP = ENGINES


@dataclass(frozen=True)
class Serving:
    """What `leyline serve` was asked for.

    Attributes:
        model: a known name, a folder, a file or a hub id.
        name: what clients call the model; None for what the engine makes of `model`.
        host, port: the address to listen on.
        python: the interpreter that has the engine; "" to look for one.
        only_print: print the command instead of running it.
        arguments: further ones, for the engine as they are.
    """

    model: str
    name: str | None
    host: str
    port: int
    python: str = ""
    only_print: bool = False
    arguments: tuple[str, ...] = ()


class ServingEngine(Protocol):
    """What an entry point of the group names: a module, or an object."""

    def serve(self, serving: Serving) -> None:
        """Run the engine's server in the place of this process, or print how to.

        Raises:
            LeylineError: it is not installed, or cannot serve this.
        """
        ...

    def check(self) -> Check:
        """What `leyline doctor` says of it."""
        ...


def announced() -> dict[str, EntryPoint]:
    """The engines that packages announce, by name; nothing is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def find(name: str) -> ServingEngine:
    """An engine by its name.

    Raises:
        LeylineError: no package announces one of that name.
    """
    known = announced()
    if name not in known:
        others = ", ".join(["leyline", *sorted(known)])
        raise LeylineError(f"no engine is named {name!r}; --engine takes one of {others}")
    engine: ServingEngine = known[name].load()
    return engine
