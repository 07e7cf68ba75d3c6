"""Repair: which kept tokens to compute again after a splice.

Values of the suffix are stale where they absorbed the removed text. What pays for its cost:

* the *boundary*: the first tokens of each reused run (EPIC, arXiv 2410.15332);
* *echoes*: suffix tokens inside an n-gram that also occurs in the removed span, found by token
  matching alone; they had copied from text that is gone;
* the *tail*: the last tokens before the new text, which the next tokens attend to most;
* *delimiters*: the tokens where messages begin, which gather what came before (off by default:
  echoes and the tail gained more for their cost).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from leyline_agent.directive import Directive, Mode, kept_runs

__all__ = ["Repair", "RepairConfig", "choose_repair"]

Tokens = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class RepairConfig:
    """Budgets of REPAIR, in tokens.

    Attributes:
        window: first tokens of each reused run.
        ngram: length of a match that counts as an echo.
        max_echo: at most so many echo tokens.
        tail: last tokens before the new text; new text counts towards it.
        delimiter: tokens to recompute from each message delimiter on; 0 for none.
        delimiter_ids: the tokens that delimit messages; an engine that has a tokenizer takes its
            special tokens where this is empty.
    """

    window: int = 16
    ngram: int = 4
    max_echo: int = 256
    tail: int = 128
    delimiter: int = 0
    delimiter_ids: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Repair:
    """Positions in the new sequence to compute again, by kind; a position is in one kind only."""

    kinds: dict[str, frozenset[int]] = field(default_factory=dict)

    @property
    def positions(self) -> frozenset[int]:
        """All of them."""
        return frozenset().union(*self.kinds.values())


def choose_repair(
    previous: Sequence[int], directives: Sequence[Directive], appended: int, config: RepairConfig
) -> Repair:
    """What REPAIR recomputes behind the REPAIR directives among `directives`.

    Args:
        previous: tokens of the original sequence.
        directives: sorted, checked; nothing behind a FORGET is kept.
        appended: new tokens behind the kept ones; they stand in for the tail.
        config: budgets.
    """
    if not any(d.mode is Mode.REPAIR for d in directives):
        return Repair()
    runs = _spliced_runs(directives, len(previous))
    if not runs:
        return Repair()
    kinds = {
        "boundary": _boundary(directives, runs, config.window),
        "echo": _echoes(np.asarray(previous, np.int64), directives, runs, config),
        "tail": _tail(runs, config.tail - appended),
        "delimiter": _delimiters(previous, runs, config),
    }
    chosen: dict[str, frozenset[int]] = {}
    for kind, positions in kinds.items():
        chosen[kind] = frozenset(positions).difference(*chosen.values())
    return Repair(chosen)


def _spliced_runs(directives: Sequence[Directive], length: int) -> list[tuple[int, int, int]]:
    """Kept runs (start, end, shift) behind the first REPAIR and before any FORGET."""
    first = next(d.end for d in directives if d.mode is Mode.REPAIR)
    stop = next((d.start for d in directives if d.mode is Mode.FORGET), length)
    return [
        (run.start, min(run.end, stop), run.shift)
        for run in kept_runs(directives, length)
        if first <= run.start < stop
    ]


def _boundary(
    directives: Sequence[Directive], runs: Iterable[tuple[int, int, int]], window: int
) -> list[int]:
    starts: set[int] = set()
    for directive in directives:  # an edit that follows at once stands before the same run
        if directive.mode is Mode.REPAIR or directive.start in starts:
            starts.add(directive.end)
    return [
        position + shift
        for start, end, shift in runs
        if start in starts
        for position in range(start, min(end, start + window))
    ]


def _tail(runs: Sequence[tuple[int, int, int]], size: int) -> list[int]:
    result: list[int] = []
    for start, end, shift in reversed(runs):
        if size <= 0:
            break
        low = max(start, end - size)
        result.extend(range(low + shift, end + shift))
        size -= end - low
    return result


def _delimiters(
    previous: Sequence[int], runs: Iterable[tuple[int, int, int]], config: RepairConfig
) -> list[int]:
    if not config.delimiter:
        return []
    return [
        position + shift
        for start, end, shift in runs
        for place in range(start, end)
        if previous[place] in config.delimiter_ids
        for position in range(place, min(end, place + config.delimiter))
    ]


def _echoes(
    previous: Tokens,
    directives: Sequence[Directive],
    runs: Iterable[tuple[int, int, int]],
    config: RepairConfig,
) -> list[int]:
    removed = [
        _ngrams(previous[d.start : d.end], config.ngram)
        for d in directives
        if d.mode is Mode.REPAIR
    ]
    known = np.unique(np.concatenate(removed))
    result: list[int] = []
    for start, end, shift in runs:
        hits = np.flatnonzero(np.isin(_ngrams(previous[start:end], config.ngram), known))
        spread = np.unique((hits[:, None] + np.arange(config.ngram)).ravel())
        result.extend((spread + start + shift).tolist())
        if len(result) >= config.max_echo:
            return result[: config.max_echo]
    return result


def _ngrams(tokens: Tokens, size: int) -> Tokens:
    """One number for each run of `size` tokens (a polynomial hash; a rare clash costs a repair)."""
    count = max(0, len(tokens) - size + 1)
    result = np.zeros(count, np.int64)
    for offset in range(size):
        result = result * np.int64(1_000_003) + tokens[offset : offset + count]
    return result
