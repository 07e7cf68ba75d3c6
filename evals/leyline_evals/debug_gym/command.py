"""The command `leyline eval debug-gym`: its own options. Those of every run are added to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from leyline_evals.solve.driver import Driver
from leyline_evals.solve.errors import EvalError

__all__ = ["debug_gym"]


def debug_gym(
    problems: Annotated[
        Literal["generated", "mini_nightmare", "exercism", "quixbugs"],
        typer.Option("--set", help="Which problems; the last two are in --path."),
    ] = "generated",
    path: Annotated[
        Path | None,
        typer.Option("--path", help="A checkout of exercism/python, or of jkoppel/QuixBugs."),
    ] = None,
    difficulty: Annotated[
        str, typer.Option("--difficulty", help="generated: of 1 (one obvious line) to 5, as 1,2.")
    ] = "1,2,3",
    num_tasks: Annotated[
        int, typer.Option("--num-tasks", min=1, help="generated: problems of each difficulty.")
    ] = 4,
    first_task: Annotated[
        int, typer.Option("--first-task", min=0, help="generated: the seed of the first.")
    ] = 0,
    protocol: Annotated[
        Literal["tools", "text"],
        typer.Option("--protocol", help="Tool calls, or one fenced block a turn: small models."),
    ] = "tools",
    sandbox: Annotated[
        Literal["bubblewrap", "docker", "none"],
        typer.Option("--sandbox", help="Where it runs; none shields this machine from nothing."),
    ] = "bubblewrap",
    max_chars: Annotated[
        int, typer.Option("--max-chars", min=200, help="Of an output, what the model sees.")
    ] = 10_000,
    memory: Annotated[int, typer.Option("--memory", min=256, help="Of a sandbox, in MiB.")] = 3072,
    disk: Annotated[
        int, typer.Option("--disk", min=1, help="Of a sandbox's folders, in MiB; in memory.")
    ] = 512,
    processes: Annotated[int, typer.Option("--processes", min=8, help="Of a sandbox.")] = 128,
) -> Driver:
    """Small repositories to mend, in debug-gym: bash, view, grep, edit, eval, pdb, submit.

    Example: `leyline eval debug-gym --model scripted -p keep_last:n=1 --out runs/first`

    `leyline eval setup debug-gym` makes its environment once. Each episode runs in a sandbox of its
    own, without network; the model is asked from outside of it. Hidden tests decide.
    """
    from leyline_evals.debug_gym.driver import DebugGym

    if sandbox == "none":
        typer.echo("leyline: --sandbox none: the model's commands run as you do", err=True)
    return DebugGym(
        problems=problems,
        path=None if path is None else str(path.resolve()),
        difficulties=_difficulties(difficulty),
        num_tasks=num_tasks,
        first=first_task,
        protocol=protocol,
        box=sandbox,
        chars=max_chars,
        memory=memory,
        disk=disk,
        processes=processes,
    )


def _difficulties(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not words or any(word not in {"1", "2", "3", "4", "5"} for word in words):
        raise EvalError(f"--difficulty {text!r}: numbers from 1 to 5, separated by commas")
    return sorted(set(map(int, words)))
