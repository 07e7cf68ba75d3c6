"""Plans: which cells a prompt would best consist of, token by token. Pure; knows no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline_adapters.llama_cpp.held import CLEAN, Held
from leyline_adapters.llama_cpp.tape import HOLE, Move, Tape
from leyline_agent.directive import Mode, kept_runs
from leyline_agent.serving.modes import Settled
from leyline_agent.serving.prompt import Prompt
from leyline_agent.serving.work import Cached

__all__ = ["Plan", "births_of", "kept", "num_cells", "only", "running", "shared_prefix"]


@dataclass(frozen=True)
class Plan:
    """A prompt, token by token: what is wanted of which tape."""

    births: list[int]
    saw: list[frozenset[str]]
    source: Tape | None


def kept(prompt: Prompt, base: Held | None, settled: Settled) -> Plan:
    """What survives of a sequence, where it is wanted, and what it has absorbed.

    A FORGET keeps nothing behind its span; what is to be repaired is a hole, and so is the last
    token, whose logits are what comes next.
    """
    births, saw = [HOLE] * len(prompt.tokens), [CLEAN] * len(prompt.tokens)
    if base is None:
        return Plan(births, saw, None)
    directives = settled.directives
    stop = next((d.start for d in directives if d.mode is Mode.FORGET), len(base))
    repaired = settled.repair.positions
    for start, end, shift in kept_runs(directives, len(base)):
        before = (i for i, d in enumerate(directives) if d.end <= start)
        absorbed = frozenset(f"{prompt.version}.{i}" for i in before)
        for place in range(start, min(end, stop)):
            if place + shift in repaired:
                continue
            births[place + shift] = base.births[place]
            saw[place + shift] = base.saw[place] | absorbed if absorbed else base.saw[place]
    births[-1] = HOLE
    return Plan(births, saw, base.tape)


def shared_prefix(length: int, tape: Tape, size: int) -> Plan:
    """A prompt of `size` tokens that begins with the first `length` of a tape."""
    births = [*tape.births[: min(length, size - 1)], *[HOLE] * (size - min(length, size - 1))]
    return Plan(births, [CLEAN] * size, tape)


def running(saw: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """What is absorbed up to each token: a computed one sees all before it."""
    result, current = [], CLEAN
    for own in saw:
        current = own if current <= own else current | own
        result.append(current)
    return result


def only(births: Sequence[int], moves: Sequence[Move]) -> list[int]:
    """The births wanted, with holes where no move brings any."""
    result = [HOLE] * len(births)
    for start, end, shift in moves:
        result[start + shift : end + shift] = births[start + shift : end + shift]
    return result


def num_cells(held: Sequence[Sequence[int]]) -> int:
    """Cells that are used, or promised to a run."""
    return len(set().union(*held) - {HOLE}) + sum(births.count(HOLE) for births in held)


def births_of(sequence: Cached) -> list[int]:
    """The cells of what a version holds."""
    assert isinstance(sequence, Held)
    return sequence.births
