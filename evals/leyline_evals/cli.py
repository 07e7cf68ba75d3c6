"""The sub-commands `leyline replay` and `leyline demo`.

Nothing heavy is imported before one of them runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from leyline_agent.errors import LeylineError
from leyline_agent.policy import parse

__all__ = ["demo", "replay"]

ALL = "append_only,prefix_cache,forget,amortize,repair"


def replay(
    files: Annotated[
        list[Path],
        typer.Argument(help="Recorded runs, in any format Leyline reads, gzipped or not."),
    ],
    policy: Annotated[
        str, typer.Option("--policy", "-p", help="What edits them: name:key=value,...")
    ],
    arms: Annotated[str, typer.Option("--arms", help="The ways to serve each run.")] = ALL,
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here, for machines.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with plots here.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most this many runs, over all files.")
    ] = None,
    max_turns: Annotated[
        int | None, typer.Option("--max-turns", min=1, help="At most this many turns of each run.")
    ] = None,
    tokens_only: Annotated[
        bool,
        typer.Option(
            "--tokens-only", help="Count, at any length; no model runs, nothing is timed."
        ),
    ] = False,
    fidelity: Annotated[
        bool,
        typer.Option("--fidelity", help="Compare predictions with an honest re-prefill as well."),
    ] = False,
    fidelity_turns: Annotated[
        int, typer.Option("--fidelity-turns", min=1, help="At so many edited turns of each run.")
    ] = 4,
    model: Annotated[
        str | None,
        typer.Option("--model", help="A known name, folder, GGUF file or hub id.  [the embedded]"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with what a killed replay left beside --json.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Processes, with --tokens-only.  [one a core]"),
    ] = None,
) -> None:
    """Re-run recorded trajectories turn by turn, in several arms, and say what each one cost.

    The exit status is 1 when an arm did not do what its name says.
    """
    _check(tokens_only, fidelity, resume, json)
    with _serving():
        from leyline_agent.serving.models.embedded import DEFAULT
        from leyline_evals.replay import command
        from leyline_evals.replay.arms import parse_arms
        from leyline_evals.replay.engines import Engines
        from leyline_evals.replay.records import Config
        from leyline_evals.replay.runner import replay as run_replay
        from leyline_evals.replay.store import beside
        from leyline_evals.replay.workload import Workload
    for path in (json, html):
        command.writable(path)
    config = Config(
        policy=policy,
        model=model or DEFAULT,
        tokens_only=tokens_only,
        max_turns=max_turns,
        fidelity_turns=fidelity_turns if fidelity else 0,
    )
    chosen = parse_arms(arms)
    parse(policy)
    with command.Bar(limit) as bar:
        played = run_replay(
            Workload(files, limit),
            config,
            Engines.load(config.model, tokens_only=tokens_only),
            arms=chosen,
            keep=beside(json) if json else None,
            resume=resume,
            jobs=jobs or command.cores(),
            progress=bar,
        )
    command.finish(played, json, html, "Leyline replay")
    if played.report.problems:
        raise typer.Exit(1)


def _check(tokens_only: bool, fidelity: bool, resume: bool, json: Path | None) -> None:
    if tokens_only and fidelity:
        raise LeylineError("--fidelity needs the model's predictions; leave --tokens-only out")
    if resume and json is None:
        raise LeylineError("--resume goes on with the file beside --json OUT; name OUT")


@contextmanager
def _serving() -> Iterator[None]:
    """Says what to install where the engine's libraries are missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise LeylineError(
            f"this command needs {error.name}; pip install 'leyline-agent[serve]'"
        ) from error


def demo(
    html: Annotated[Path, typer.Option("--html", help="Where to write the page with plots.")] = (
        Path("leyline-demo.html")
    ),
    json: Annotated[
        Path | None, typer.Option("--json", help="Write the figures here, for machines.")
    ] = None,
) -> None:
    """Replay a recorded agent run on a small real model: what an edit costs, spliced or not."""
    with _serving():
        from leyline_evals.demo.command import INTRODUCTION
        from leyline_evals.demo.command import demo as run_demo
        from leyline_evals.replay import command
    for path in (json, html):
        command.writable(path)
    typer.echo(INTRODUCTION)
    with command.Bar(1) as bar:
        played = run_demo(bar)
    command.finish(played, json, html, "Leyline demo")
