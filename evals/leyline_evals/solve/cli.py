"""The sub-commands of `leyline eval`. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from leyline_agent.errors import LeylineError
from leyline_evals.solve.driver import Driver
from leyline_evals.solve.drivers import DRIVERS, load
from leyline_evals.solve.options import RunOptions, benchmark, seconds_of

__all__ = ["app"]

HELP = """Solve rates of policies and mechanisms on benchmarks, measured together and paired.

Example: `leyline eval sums --model scripted --policy truncate_older_than:n=1 --out runs/toy`

A benchmark's command makes a run, a folder, and plays its episodes: every task, seed and arm. It
can be stopped at any time; `resume` goes on. `report` says what was found, `plan` what could be.
"""

EPILOG = "What a run holds, counts and registers is told in docs/evals.md."

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help=HELP, epilog=EPILOG)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines, and nothing else.")]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]


@contextmanager
def _installed() -> Iterator[None]:
    """Says what to install where a library is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = "serve,eval" if error.name in ("torch", "transformers", "gguf") else "eval"
        raise LeylineError(
            f"this needs {error.name}; pip install 'leyline-agent[{extra}]'"
        ) from error


@contextmanager
def _stoppable(run: Path | None) -> Iterator[None]:
    """Says after Ctrl-C what became of the run."""
    try:
        yield
    except KeyboardInterrupt as error:
        kept = f"; finished episodes are kept: leyline eval resume {run}" if run else ""
        typer.echo(f"leyline: stopped{kept}", err=True)
        raise typer.Exit(130) from error


def _run(driver: Driver, options: RunOptions) -> None:
    with _installed(), _stoppable(options.out):
        from leyline_evals.solve import command

        command.run(driver, options)


for _name, _place in DRIVERS.items():
    app.command(_name)(benchmark(load(_place.command), _run))


@app.command()
def resume(
    run: Folder,
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Episodes at once.")] = 1,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End the sitting after so long: 90m, 2h, 45s."),
    ] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Run again what ended in an error.")
    ] = False,
    json: Json = False,
) -> None:
    """Go on with a run: what is finished stays, what was under way is run again.

    Example: `leyline eval resume runs/first --for 90m --workers 4`
    """
    seconds = None if for_ is None else seconds_of(for_, "--for")
    with _installed(), _stoppable(run):
        from leyline_evals.solve import command

        command.resume(run, workers, seconds, retry_errors, json)


@app.command()
def setup(
    name: Annotated[str, typer.Argument(help="The benchmark: debug-gym, swe-bench.")],
    again: Annotated[bool, typer.Option("--again", help="Make it anew.")] = False,
) -> None:
    """Make the Python environment that a benchmark runs in, in the user's data folder.

    Example: `leyline eval setup debug-gym`
    """
    from leyline_evals.solve import environments

    environments.make(name, typer.echo, again=again)


@app.command()
def tasks(
    run: Folder,
    arm: Annotated[str, typer.Option("--arm", help="By name or mechanism.")] = "keep_all",
    between: Annotated[
        str, typer.Option("--between", metavar="LOW,HIGH", help="Solve rates, both included.")
    ] = "0,1",
) -> None:
    """The tasks of a run that an arm solves neither too often nor too seldom, one a line.

    Example: `leyline eval tasks runs/pilot --between 0.15,0.7`

    For a pilot: what it prints are the TASKS of the run proper. The pilot's own episodes must not
    count again, for they were chosen by chance: give that run another --first-seed.
    """
    from leyline_evals.solve.folder import RunFolder
    from leyline_evals.solve.picking import picked, rates_of

    low, high = rates_of(between)
    for task in picked(RunFolder.open(run), arm, low, high):
        typer.echo(task)


@app.command()
def plan(
    tasks: Annotated[int, typer.Argument(min=1, help="Tasks.")],
    seeds: Annotated[int, typer.Argument(min=1, help="Episodes a task and arm.")],
    expect: Annotated[float, typer.Option("--expect", help="The solve rate expected.")] = 0.5,
    icc: Annotated[
        float, typer.Option("--icc", help="How alike a task's episodes are expected to be, 0-1.")
    ] = 0.3,
    alpha: Annotated[float, typer.Option("--alpha", help="The level of the test.")] = 0.05,
    power: Annotated[float, typer.Option("--power", help="The chance to find it.")] = 0.8,
    json: Json = False,
) -> None:
    """What a run of so many tasks and seeds could show, before it is made.

    Example: `leyline eval plan 8 4 --expect 0.4`
    """
    with _installed():
        from leyline_evals.solve import planning

        planning.tell(tasks, seeds, expect, icc, alpha, power, json)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs' folders.")],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Write a page with plots here.")
    ] = None,
    json: Json = False,
) -> None:
    """What runs found: rates with intervals, the registered comparison, and what solving cost.

    Example: `leyline eval report runs/first --html report.html`

    Several runs are told one after the other, each by its own plan.
    """
    with _installed():
        from leyline_evals.solve import reporting

        reporting.report(runs, html, json)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run's folder.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another's.")],
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="Only this arm, by name or mechanism.  [all they share]"),
    ] = None,
    json: Json = False,
) -> None:
    """Two runs arm by arm, over the tasks and seeds that both have: another model, another day.

    Example: `leyline eval compare runs/small runs/large --arm keep_all`
    """
    with _installed():
        from leyline_evals.solve import reporting

        reporting.compare(a, b, arm or (), json)
