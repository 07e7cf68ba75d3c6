"""The `leyline` command: its sub-commands and how errors are told.

A sub-command is a typer-annotated function, or a `typer.Typer` of its own, named by an entry point
of the group `leyline.commands`; our own are in the table below. Only the one asked for is
imported. Modules of sub-commands import heavy libraries inside the function, so that
`leyline --help`, which reads every docstring, stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any

import typer

from leyline_agent._version import __version__
from leyline_agent.cli.text import printable
from leyline_agent.errors import LeylineError

__all__ = ["build", "commands", "main"]

GROUP = "leyline.commands"

_OWN = {
    "doctor": "leyline_agent.cli.doctor:command",
    "inspect": "leyline_agent.cli.inspect:command",
    "models": "leyline_agent.cli.models:app",
    "serve": "leyline_agent.cli.serve:command",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a `LeylineError` becomes one line on stderr and exit status 2.

    `LEYLINE_DEBUG=1` shows the traceback instead.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    table = commands()
    asked = next((word for word in given if not word.startswith("-")), None)
    wanted = [table[asked]] if asked in table else table.values()
    try:
        build(wanted)(args=given, prog_name="leyline")
    except LeylineError as error:
        if os.environ.get("LEYLINE_DEBUG") == "1":
            raise
        print("leyline:", " ".join(printable(str(error)).split()), file=sys.stderr)
        sys.exit(2)


def commands() -> dict[str, EntryPoint]:
    """Every sub-command by name, sorted; nothing is imported. Our own names win."""
    table = {point.name: point for point in entry_points(group=GROUP)}
    table.update({name: EntryPoint(name, value, GROUP) for name, value in _OWN.items()})
    return dict(sorted(table.items()))


def build(points: Iterable[EntryPoint]) -> typer.Typer:
    """The application with these sub-commands, imported here."""
    app = typer.Typer(
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for point in points:
        _register(app, point)
    return app


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=lambda on: _tell_version(on),
        ),
    ] = False,
) -> None:
    """Edit an agent's cached context: policies outside the engine, KV splices inside it."""


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"leyline {__version__}")
        raise typer.Exit


def _register(app: typer.Typer, point: EntryPoint) -> None:
    try:
        target = point.load()
    except Exception as error:  # whatever a foreign package raises while it is imported
        app.command(
            point.name,
            help=f"(cannot be loaded: {error})",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_broken(point, error))
        return
    if isinstance(target, typer.Typer):
        app.add_typer(target, name=point.name)
    else:
        app.command(point.name)(target)


def _broken(point: EntryPoint, error: Exception) -> Callable[[], Any]:
    """A stand-in for a sub-command that cannot be imported; says so when it is called."""
    owner = f" of {point.dist.name}" if point.dist else ""

    def stand_in() -> None:
        raise LeylineError(
            f"the command {point.name!r}{owner} cannot be loaded from {point.value!r}: "
            f"{type(error).__name__}: {error}. Reinstall the package it comes from, or remove it"
        ) from error

    return stand_in
