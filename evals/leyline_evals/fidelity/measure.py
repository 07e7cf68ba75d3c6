"""Measuring one edit: honest first, then its controls, then every arm in every order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.render import ChatRenderer
from leyline_evals.fidelity.arms import Arm
from leyline_evals.fidelity.bench import Bench, Line
from leyline_evals.fidelity.calls import meaning
from leyline_evals.fidelity.cases import Case, Kind, Order
from leyline_evals.fidelity.records import ArmRow, Config, EditRow

__all__ = ["Measurer"]

HONEST = "honest"


class Measurer:
    """Measures edits on a bench.

    Args:
        bench: the engine.
        chat: renders for its model.
        arms: at least one.
        config: how.
    """

    def __init__(
        self, bench: Bench, chat: ChatRenderer, arms: Sequence[Arm], config: Config
    ) -> None:
        self._bench = bench
        self._chat = chat
        self._arms = arms
        self._config = config
        self._delimiters = frozenset(chat.tokenizer.all_special_ids)

    def row(self, case: Case, *, calls: bool = False) -> EditRow:
        """Everything about one edit; with `calls`, whether each arm's next call is honest's.

        Raises:
            OutOfSlots: the bench is too small for it.
        """
        started = time.perf_counter()
        base = self._bench.prefill(case.unedited[: case.held[Order.EDIT_LAST]])
        with self._lines() as lines:
            honest = self._honest(lines, base, case)
            judge = _Judge(self._bench, self._chat, case, honest, self._config, calls=calls)
            controls = judge.rows(
                {
                    HONEST: honest,
                    "noise": self._honest(lines, base, case, self._config.floor_chunk),
                    "unedited": self._undone(lines, base, case),
                }
            )
            arms = {
                order: judge.rows(
                    self._spliced(lines, base, case, order, honest),
                    asked=order is Order.EDIT_FIRST,
                )
                for order in self._config.orders
            }
        return EditRow(
            key=case.key,
            cluster=case.cluster,
            kind=case.kind,
            prompt=len(case.unedited),
            start=case.start,
            removed=sum(d.end - d.start for d in case.directives),
            inserted=sum(len(d.replacement) for d in case.directives),
            suffix={order: case.kept(order) for order in self._config.orders},
            appended={o: len(case.unedited) - case.held[o] for o in self._config.orders},
            tokens=len(case.continuation),
            controls=controls,
            arms=arms,
            seconds=round(time.perf_counter() - started, 3),
        )

    @contextmanager
    def _lines(self) -> Iterator[list[Line]]:
        """Gives back what is put into the list."""
        lines: list[Line] = []
        try:
            yield lines
        finally:
            self._bench.release(lines)

    def _honest(
        self, lines: list[Line], base: CachedSequence, case: Case, chunk: int | None = None
    ) -> Line:
        """What FORGET does: everything behind the edit is computed anew."""
        line = self._bench.extend(base.fork(case.start), case.edited[case.start :])
        lines.append(line)
        self._bench.compute([line], chunk)
        return line

    def _undone(self, lines: list[Line], base: CachedSequence, case: Case) -> Line:
        line = self._bench.extend(base.fork(), case.unedited[len(base) :])
        lines.append(line)
        self._bench.compute([line])
        return line

    def _spliced(
        self, lines: list[Line], base: CachedSequence, case: Case, order: Order, honest: Line
    ) -> dict[str, Line]:
        bench = self._bench

        @cache
        def ranked() -> list[int]:
            plain = bench.splice(base, case, order)
            found = bench.deviations(plain, honest.sequence)
            bench.release([plain])
            return found

        made: dict[str, Line] = {}
        for arm in self._arms:
            chosen = arm.positions(case, order, self._delimiters, ranked)
            line = bench.splice(base, case, order, chosen, rotate=arm.how != "unrotated")
            lines.append(line)
            made[arm.name] = line
        bench.compute(list(made.values()))
        return made


class _Judge:
    """Compares lines of one case with its honest one."""

    def __init__(
        self,
        bench: Bench,
        chat: ChatRenderer,
        case: Case,
        honest: Line,
        config: Config,
        *,
        calls: bool,
    ) -> None:
        self._bench = bench
        self._chat = chat
        self._case = case
        self._most = config.call_tokens
        [logits] = bench.score([honest], case.continuation)
        self._expected = torch.log_softmax(logits, dim=-1)
        self._call: list[int] | None = None
        if calls:
            [self._call] = bench.greedy([honest], [self._most], chat.stop_ids)

    def rows(self, lines: Mapping[str, Line], *, asked: bool = True) -> dict[str, ArmRow]:
        """A row a line, by name; `asked` for their next calls, if any line is."""
        ordered = list(lines.values())
        heard: dict[str, list[float]] = {}
        for name, tokens in self._case.asked.items():
            heard[name] = [_log_prob(found, tokens) for found in self._score(ordered, tokens)]
        same = self._same_calls(ordered) if asked else [None] * len(ordered)
        rows: dict[str, ArmRow] = {}
        scored = self._score(ordered, self._case.continuation)
        for number, (name, found) in enumerate(zip(lines, scored, strict=True)):
            said = {key: round(values[number], 4) for key, values in heard.items()}
            rows[name] = self._row(found, ordered[number], said, same[number])
        return rows

    @property
    def _score(self) -> Callable[[Sequence[Line], Sequence[int]], Iterator[Tensor]]:
        return self._bench.score

    def _row(
        self, logits: Tensor, line: Line, said: Mapping[str, float], same_call: bool | None
    ) -> ArmRow:
        found = torch.log_softmax(logits, dim=-1)
        kl = (self._expected.exp() * (self._expected - found)).sum(-1).clamp_min(0)
        agreeing = found.argmax(-1) == self._expected.argmax(-1)
        right = None
        if self._case.kind is Kind.COPY:
            right = found.argmax(-1).tolist() == list(self._case.continuation)
        return ArmRow(
            kl=float(kl.mean()),
            kl_max=float(kl.max()),
            top1=float(agreeing.float().mean()),
            recomputed=line.recomputed,
            said=dict(said),
            right=right,
            same_call=same_call,
        )

    def _same_calls(self, lines: Sequence[Line]) -> list[bool | None]:
        """Whether each line's next call is honest's; None where that was not asked."""
        if self._call is None:
            return [None] * len(lines)
        expected = self._means(self._call)
        found = self._bench.follow(lines, self._call, self._most, self._chat.stop_ids)
        return [self._means(tokens) == expected for tokens in found]

    def _means(self, tokens: Sequence[int]) -> str:
        return meaning(self._chat.tokenizer.decode(list(tokens)))


def _log_prob(logits: Tensor, tokens: Sequence[int]) -> float:
    """Of all tokens together."""
    found = torch.log_softmax(logits, dim=-1)
    return float(found[torch.arange(len(tokens)), torch.tensor(tokens)].sum())
