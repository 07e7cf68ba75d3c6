"""Which of a request's claims hold: token identity is verified, nobody is trusted.

A claim says that tokens [start, end) of a source stand at `at` in the prompt. What holds of it is
decided here, from tokens alone; whether the source's KV is still there is another matter
(`sources.py`). No torch and no engine, so that any engine's plug-in can use it.

    parent    [ a a a a a x x x x b b b b b b ]      the lineage that the prompt continues
    prompt    [ a a a a a b b b b b b n n n ]
                ^         ^           ^
                0         fork        new text, prefilled
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from leyline_adapters.vllm.wire import PROTOCOL, Ask, Claim
from leyline_agent.receipt import Reason

__all__ = ["Located", "Tokens", "Verified", "common_prefix", "verify"]


class Tokens(Protocol):
    """What verification needs of a source: its tokens, and for how many of them it holds KV."""

    @property
    def tokens(self) -> Sequence[int]:
        """The prompt, then what was sampled."""
        ...

    @property
    def held(self) -> int:
        """Tokens [0, held) have KV: all but the last one sampled."""
        ...


S = TypeVar("S", bound=Tokens)


@dataclass(frozen=True)
class Located(Generic[S]):
    """A claim that holds: tokens [start, end) of `source` stand at `at`.

    `in_place` when it continues the parent's lineage: the KV is the very one.
    """

    source: S
    start: int
    end: int
    at: int
    in_place: bool

    @property
    def stop(self) -> int:
        """Where it ends in the prompt."""
        return self.at + self.end - self.start


@dataclass(frozen=True)
class Verified(Generic[S]):
    """What holds of an ask.

    Attributes:
        claims: those that hold, shortened where they do not, by `at`, not overlapping.
        parent: whose lineage the prompt continues; None for canonical KV.
        shared: tokens [0, shared) of the prompt are claimed to be the parent's, with its KV.
        leaves: the prompt goes on as the parent does behind `shared`, but nobody claims it: that
            is to be computed, though the parent has KV of the same tokens.
        fork: the first claimed token whose KV is not the parent's; None when there is none.
        reason: ASKED when every claim holds.
        detail: the reason in words.
    """

    claims: tuple[Located[S], ...] = ()
    parent: S | None = None
    shared: int = 0
    leaves: bool = False
    fork: int | None = None
    reason: Reason = Reason.ASKED
    detail: str = ""


def verify(prompt: Sequence[int], ask: Ask, find: Callable[[str], S | Reason]) -> Verified[S]:
    """Check an ask against the prompt.

    Args:
        prompt: the request's tokens.
        ask: what the client says.
        find: a handle's source; or why there is none, which is also the answer to handles of
            another session or tenant.
    """
    if ask.protocol != PROTOCOL:
        return Verified(
            reason=Reason.ENGINE_CANNOT_SPLICE,
            detail=f"protocol {ask.protocol}; this server speaks {PROTOCOL}: use one release",
        )
    found: dict[str, S] = {}
    for handle in dict.fromkeys((ask.base, *(claim.source for claim in ask.claims))):
        source = find(handle) if handle else None
        if isinstance(source, Reason):
            return Verified(reason=source, detail=f"no source {handle!r} in this session")
        if source is not None:
            found[handle] = source
    return _checked(prompt, ask, found)


def _checked(prompt: Sequence[int], ask: Ask, found: dict[str, S]) -> Verified[S]:
    first = ask.claims[0] if ask.claims else None
    continues = first is not None and first.at == first.start == 0
    named = ask.base or (first.source if first is not None and continues else "")
    parent = found.get(named)
    kept: list[Located[S]] = []
    problem = ""
    shared = stop = 0
    for claim in ask.claims:
        length, problem = _holds(prompt, claim, found[claim.source], stop)
        # Behind anything else, of the same tokens too, KV saw what is not there now.
        in_place = claim.source == named and claim.start == claim.at == shared
        if length:
            end = claim.start + length
            kept.append(Located(found[claim.source], claim.start, end, claim.at, in_place))
            stop = claim.at + length
            shared = stop if in_place else shared
        if problem:
            break
    alike = common_prefix(prompt, parent.tokens[: parent.held]) if parent is not None else 0
    return Verified(
        claims=tuple(kept),
        parent=parent,
        shared=shared,
        leaves=alike > shared,
        fork=next((claim.at for claim in kept if not claim.in_place), None),
        reason=Reason.INVALID_EDIT if problem else Reason.ASKED,
        detail=problem,
    )


def _holds(prompt: Sequence[int], claim: Claim, source: Tokens, stop: int) -> tuple[int, str]:
    """How many of a claim's tokens hold, and what is wrong when not all do."""
    said = f"tokens [{claim.start}, {claim.end}) of {claim.source} at {claim.at}"
    if claim.at < stop:
        return 0, f"{said}: overlaps the claim before it, which ends at {stop}"
    asked = claim.end - claim.start
    here = min(asked, max(0, source.held - claim.start), max(0, len(prompt) - claim.at))
    start, at = claim.start, claim.at
    length = common_prefix(source.tokens[start : start + here], prompt[at : at + here])
    if length < here:
        return length, f"{said}: token {at + length} of the prompt is another"
    if claim.end > source.held:
        return length, f"{said}: that source has KV of {source.held} tokens"
    if length < asked:
        return length, f"{said}: the prompt has {len(prompt)} tokens"
    return length, ""


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading tokens are the same; slices are compared, by halves."""
    left, right = list(left), list(right)
    low, high = 0, min(len(left), len(right))
    if left[:high] == right[:high]:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low + 1 if low < high and left[low] == right[low] else low
