"""What `leyline replay` does with a workload, an adapter or a concurrency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from leyline_agent.serving.models.embedded import DEFAULT
from leyline_evals.load import table
from leyline_evals.load.engine import Targets, counted, in_process, named
from leyline_evals.load.message_edit import parse_workload
from leyline_evals.load.report import LoadConfig
from leyline_evals.load.runner import Load
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.command import Bar, write
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.outputs import STDOUT
from leyline_evals.replay.workload import Run, Skipped, Workload

__all__ = ["BUNDLED", "Conversations", "conversations", "put", "whole_numbers"]

BUNDLED = "bundled"


@dataclass(frozen=True)
class Conversations:
    """What is played.

    Attributes:
        name: in words.
        runs: the conversations.
        policy: what edits them unless told, in its text form; "" for nothing.
        skipped: records that could not be read.
    """

    name: str
    runs: Sequence[Run]
    policy: str = ""
    skipped: Sequence[Skipped] = ()


def conversations(files: Sequence[Path], workload: str | None, limit: int | None) -> Conversations:
    """The conversations of files, or of a workload that is made.

    Raises:
        ReplayError: there is no such workload.
        TrajectoryError: a file cannot be read, or holds nothing to replay.
    """
    if workload is not None:
        made = parse_workload(workload)
        return Conversations(str(made), list(islice(made.runs(), limit)), made.policy)
    recorded = Workload(files, limit)
    runs = list(recorded)
    return Conversations(", ".join(map(str, files)), runs, "", recorded.skipped)


def whole_numbers(text: str) -> list[int]:
    """The concurrencies of "1,4,16".

    Raises:
        ReplayError: one is no number, or less than 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ReplayError(f"--concurrency {text}: numbers of calls, 1 or more, as in 1,4,16")
    return [int(part) for part in parts]


def put(
    talks: Conversations,
    policy: str,
    arms: Sequence[Arm],
    concurrencies: Sequence[int],
    json: Path | None,
    *,
    engine: str = "",
    model: str = "",
    **options: Any,
) -> bool:
    """Put the load on the engine, print a table; whether there was no problem.

    Args:
        talks: the conversations.
        policy: what edits them, in its text form.
        arms: at each concurrency, one after the other.
        concurrencies: one after the other.
        json: where the figures go.
        engine: an adapter, as `engine.named` takes it; "" for the bundled one in this process.
        model: its model; "" for its own choice.
        options: the rest of `LoadConfig`.

    Raises:
        LeylineError: the engine cannot be had.
    """
    own = engine in ("", BUNDLED)
    config = LoadConfig(
        workload=talks.name,
        policy=policy,
        engine=engine or BUNDLED,
        model=model or (DEFAULT if own else ""),
        **options,
    )
    targets, engines = _targets(config)
    load = Load(talks.runs, config, targets, arms, engines)
    calls = sum(len(run.turns[: config.max_turns]) for run in talks.runs)
    console = Console(stderr=json == STDOUT)
    with Bar() as bar:
        done = 0

        def on_turn(concurrency: int, arm: Arm) -> None:
            nonlocal done
            done += 1
            whole = calls * len(arms) * len(concurrencies)
            bar.part(f"{arm.value}, concurrency {concurrency}", done, whole)

        if engines is not None:
            engines.warm_up()
        for _ in load.points(concurrencies, on_turn):
            # Written again and again: Ctrl-C keeps the concurrencies that are through.
            _keep(json, load.report(talks.skipped).model_dump_json(indent=2))
    report = load.report(talks.skipped)
    if json == STDOUT:
        print(report.model_dump_json(indent=2), flush=True)
    table.show(report, console)
    if json not in (None, STDOUT):
        console.print(f"figures: {json}", highlight=False, soft_wrap=True, markup=False)
    return not report.problems


def _targets(config: LoadConfig) -> tuple[Targets, Engines | None]:
    if config.engine != BUNDLED:
        return named(config.engine, config.model or None, config.reply_tokens), None
    engines = Engines.load(config.model, tokens_only=config.tokens_only)
    if config.tokens_only:
        return counted(engines), engines
    return in_process(engines, config.reply_tokens), engines


def _keep(json: Path | None, figures: str) -> None:
    if json is not None and json != STDOUT:
        write(json, figures + "\n")
