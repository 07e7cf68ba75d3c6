"""Several policies on the same runs, one row each: what edits save, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from leyline_agent._version import __version__
from leyline_agent.directive import Mode
from leyline_agent.errors import PolicyError
from leyline_agent.policy import parse
from leyline_evals.replay.arms import Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.pool import Workers
from leyline_evals.replay.records import Config
from leyline_evals.replay.report import Machine, ReplayReport, SkippedRecord
from leyline_evals.replay.runner import Progress, replay
from leyline_evals.replay.workload import Workload

__all__ = ["COLUMNS", "Comparison", "Row", "compare", "expanded", "heading", "line"]

COLUMNS = (Arm.PREFIX_CACHE, Arm.REPAIR, Arm.AMORTIZE)


class Row(BaseModel):
    """One policy.

    Attributes:
        policy: as asked for.
        prompt_tokens: of all prompts.
        compute_tokens: prefilled, and recomputed, in each arm; of a policy that forgets whatever it
            edits the arms that splice are one, `forget`.
        edits: of messages.
        problems: as in a report of one policy.
    """

    policy: str
    prompt_tokens: int
    compute_tokens: dict[Arm, int]
    edits: int
    problems: list[str]


class Comparison(BaseModel):
    """What `leyline replay --json` writes of several policies."""

    format: Literal["leyline-replay-policies"] = "leyline-replay-policies"
    version: Literal[1] = 1
    leyline: str
    model: str
    max_turns: int | None
    fulfil: str
    machine: Machine
    seconds: float
    files: list[str]
    runs: int
    turns: int
    skipped: list[SkippedRecord]
    rows: list[Row]


def expanded(policies: Sequence[str]) -> list[str]:
    """The policies' texts; of @FILE one a line, without blank lines and those that begin with #.

    Raises:
        PolicyError: such a file cannot be read, or holds none.
    """
    found: list[str] = []
    for text in policies:
        found += _listed(Path(text[1:])) if text.startswith("@") else [text]
    for text in found:
        parse(text)
    return found


def _listed(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"--policy @{path}: cannot be read: {error}") from error
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise PolicyError(f"--policy @{path}: no policy in it; write one a line")
    return found


def compare(
    policies: Sequence[str],
    files: Sequence[Path],
    limit: int | None,
    config: Config,
    *,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Iterator[tuple[Row, Comparison]]:
    """Replay the runs once a policy: each row as it is there, and all that are.

    Args:
        policies: their texts.
        files: the recorded runs.
        limit: at most this many of them.
        config: whose policy is left out of account.
        jobs: processes.
        progress: is told how far each replay is.

    Raises:
        ReplayError: a model is to run; that takes one replay a policy.
    """
    if not config.tokens_only:
        raise ReplayError("several policies are compared with --tokens-only; a model runs for one")
    started = time.perf_counter()
    engines = Engines.load(config.model, tokens_only=True)
    rows: list[Row] = []
    with Workers(config.model, jobs) as workers:
        for policy in policies:
            workload = Workload(files, limit)
            own = config.model_copy(update={"policy": policy})
            arms = (Arm.PREFIX_CACHE, Arm.FORGET) if _forgets(policy) else COLUMNS
            report = replay(
                workload, own, engines, arms=arms, workers=workers, progress=progress
            ).report
            rows.append(_row(report, arms))
            seconds = round(time.perf_counter() - started, 2)
            yield rows[-1], _so_far(report, arms, files, rows, seconds)


def _row(report: ReplayReport, arms: Sequence[Arm]) -> Row:
    return Row(
        policy=report.config.policy,
        prompt_tokens=report.arms[arms[0]].prompt_tokens,
        compute_tokens={arm: report.arms[arm].compute_tokens for arm in arms},
        edits=report.arms[arms[-1]].edits,
        problems=report.problems,
    )


def _so_far(
    report: ReplayReport,
    arms: Sequence[Arm],
    files: Sequence[Path],
    rows: list[Row],
    seconds: float,
) -> Comparison:
    """The rows, with what the report of the last one says of all."""
    config = report.config
    return Comparison(
        leyline=__version__,
        model=config.model,
        max_turns=config.max_turns,
        fulfil=config.fulfil,
        machine=report.machine,
        seconds=seconds,
        files=[file.name for file in files],
        runs=len(report.runs),
        turns=report.arms[arms[0]].turns,
        skipped=report.skipped,
        rows=rows,
    )


def _forgets(policy: str) -> bool:
    return parse(policy).mode is Mode.FORGET


def heading() -> str:
    """The first two lines of a Markdown table."""
    titles = ["policy", "prompts", "prefix cache only", "REPAIR", "AMORTIZE", "edits"]
    return f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}"


def line(row: Row) -> str:
    """A row of the table, in thousand tokens."""
    forgotten = row.compute_tokens.get(Arm.FORGET, 0)
    tokens = [row.prompt_tokens, *(row.compute_tokens.get(arm, forgotten) for arm in COLUMNS)]
    thousands = " | ".join(f"{count / 1e3:,.0f}" for count in tokens)
    return f"| `{row.policy}` | {thousands} | {row.edits:,} |"
