"""A whole measurement: edits drawn, measured and kept, until there are enough or time is up."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from leyline_agent._version import __version__
from leyline_agent.errors import OutOfSlots
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.fidelity import fingerprint, repair_set
from leyline_agent.serving.kv.store import bytes_per_token
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.render import ChatRenderer
from leyline_evals.fidelity import totals
from leyline_evals.fidelity.arms import parse_arms
from leyline_evals.fidelity.bench import Bench
from leyline_evals.fidelity.cases import Case, Order
from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.generated import generated_cases
from leyline_evals.fidelity.measure import Measurer
from leyline_evals.fidelity.recorded import recorded_cases
from leyline_evals.fidelity.records import Config, EditRow
from leyline_evals.fidelity.report import FidelityReport
from leyline_evals.fidelity.store import Header, Store
from leyline_evals.fidelity.verdict import floor_of, verdicts
from leyline_evals.replay.report import Machine
from leyline_evals.replay.runner import cpu_name

__all__ = ["Measured", "Progress", "Silent", "measure", "plan", "summarise"]

# A line an arm is held until the edit is measured; what they share is held once.
_LINES = 4


class Progress(Protocol):
    """Is told how far a measurement is."""

    def edit(self, row: EditRow, done: int) -> None:
        """An edit is measured, or skipped; `done` are measured."""
        ...


class Silent:
    """Tells nobody."""

    def edit(self, row: EditRow, done: int) -> None:
        """An edit is measured."""


@dataclass
class Measured:
    """A finished measurement, or as much of it as there was time for."""

    report: FidelityReport
    rows: list[EditRow] = field(repr=False)


def plan(files: Sequence[Path], chat: ChatRenderer, config: Config) -> Iterator[Case]:
    """The edits, in order: the same for the same configuration.

    Ends when the recorded runs do; where all are generated they have no end.
    """
    every = config.selection.generated
    generated = generated_cases(chat, config.selection)
    if _only_generated(files, config):
        yield from generated
        return
    for number, case in enumerate(recorded_cases(files, chat, config.selection), start=1):
        yield case
        if every > 1 and number % (every - 1) == 0:
            yield next(generated)


def measure(
    files: Sequence[Path],
    config: Config,
    model: LoadedModel,
    *,
    limit: int,
    seconds: float | None = None,
    keep: Path | None = None,
    resume: bool = False,
    pairs: Sequence[tuple[str, str]] = (),
    progress: Progress | None = None,
) -> Measured:
    """Measure edits until `limit` of them are, `seconds` are over or there are no more.

    Args:
        files: recorded runs; none for generated edits only.
        config: which edits, and how.
        model: what is measured.
        limit: so many edits of recorded runs (of generated ones without files).
        seconds: begin no edit after this time.
        keep: a file that edits are written to (`store.beside`).
        resume: go on with what `keep` holds.
        pairs: arms compared with each other, the primary pair first.
        progress: is told of every edit.

    Raises:
        TrajectoryError: a file cannot be read.
        FidelityError: `keep` cannot be written, is of another measurement or in use; there are no
            edits.
    """
    started, load = time.perf_counter(), _load()
    chat = ChatRenderer(model.tokenizer)
    header = Header(fingerprint=fingerprint(model), config=config)
    with Store(keep, header, resume=resume) as store:
        measurer = Measurer(Bench(_engine(model, config)), chat, parse_arms(config.arms), config)
        until = None if seconds is None else started + seconds
        sitting = _Sitting(config, store, measurer, progress or Silent(), limit, until)
        every = _only_generated(files, config)
        rows = sitting.rows(plan(files, chat, config), every=every)
    machine = _machine(model, load)
    spent = time.perf_counter() - started
    report = summarise(rows, config, model, machine, spent, pairs)
    extent = {
        "asked": limit,
        "available": sitting.available,
        "complete": sitting.complete,
    }
    return Measured(report.model_copy(update=extent), rows)


@dataclass
class _Sitting:
    """Measures what the store does not know yet, until a time.

    Attributes:
        measured, skipped: edits that count, so far.
        exhausted: there are no more.
    """

    config: Config
    store: Store
    measurer: Measurer
    progress: Progress
    limit: int
    until: float | None
    measured: int = 0
    skipped: int = 0
    exhausted: bool = False

    @property
    def available(self) -> int | None:
        """How many edits that count there are; None where the end of them was not reached."""
        return self.measured + self.skipped if self.exhausted else None

    @property
    def complete(self) -> bool:
        """Whether all asked for are measured, or some of as many do not fit the memory."""
        return self.measured >= self.limit or (self.available or 0) >= self.limit

    def rows(self, cases: Iterable[Case], *, every: bool) -> list[EditRow]:
        """A row an edit; `every` edit counts towards the limit, or those of recorded runs."""
        rows: list[EditRow] = []
        for case in cases:
            counts = every or case.kind.recorded
            row = self.store.rows.get(case.key)
            if row is None:
                if self.until is not None and time.perf_counter() > self.until:
                    break
                row = self._measured(case, counts and self._asks(self.measured))
                self.progress.edit(row, self.measured + (counts and not row.skipped))
            rows.append(row)
            self.measured += counts and not row.skipped
            self.skipped += counts and bool(row.skipped)
            if self.measured >= self.limit:
                break
        else:
            self.exhausted = True
        if not self.measured:
            low, high = self.config.selection.tokens
            raise FidelityError(
                f"no edit was measured: no reply of the runs has a prompt of {low} to {high} "
                "tokens with a long result in it, or there was no time; --tokens and --for say "
                "how long"
            )
        return rows

    def _asks(self, done: int) -> bool:
        """Whether the next edit is asked for its next call."""
        return bool(self.config.calls) and done % self.config.calls == 0

    def _measured(self, case: Case, calls: bool) -> EditRow:
        """A row, kept; of an edit that does not fit the machine's memory, why there is none."""
        try:
            row = self.measurer.row(case, calls=calls)
        except OutOfSlots as error:
            why = f"no room: {error}"
            row = EditRow(key=case.key, cluster=case.cluster, kind=case.kind, skipped=why)
        self.store.add(row)
        return row


def _only_generated(files: Sequence[Path], config: Config) -> bool:
    return not files or config.selection.generated == 1


def summarise(
    rows: Sequence[EditRow],
    config: Config,
    model: LoadedModel,
    machine: Machine,
    seconds: float,
    pairs: Sequence[tuple[str, str]] = (),
) -> FidelityReport:
    """The report of some edits."""
    main = totals.main_rows(rows)
    clusters = len({row.cluster for row in main})
    arms, controls = totals.arms(main), totals.controls(main)
    found = verdicts(arms, controls, clusters)
    return FidelityReport(
        leyline=__version__,
        config=config,
        fingerprint=fingerprint(model),
        repair=repair_set(EngineConfig().repair),
        machine=machine,
        seconds=round(seconds, 1),
        floor=floor_of(found),
        verdicts=found,
        edits=sum(row.kind.recorded for row in main),
        clusters=clusters,
        generated=sum(not row.kind.recorded and not row.skipped for row in rows),
        skipped=totals.skipped(rows),
        controls=controls,
        arms=arms,
        probes=totals.probes(rows),
        comparisons=totals.comparisons(main, pairs, Order.EDIT_FIRST) if pairs else [],
    )


def _engine(model: LoadedModel, config: Config) -> Engine:
    """An engine with room for what one edit needs at a time."""
    longest = config.selection.tokens[1] + config.selection.continuation + config.call_tokens
    lines = _LINES + len(config.arms)
    size = bytes_per_token(model.facts.layers, model.dtype)
    return Engine.of(model, EngineConfig(kv_bytes=2 * lines * longest * size))


def _machine(model: LoadedModel, load: float | None) -> Machine:
    return Machine(
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        dtype=str(model.dtype).removeprefix("torch."),
        load_at_start=load,
    )


def _load() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
