"""Lowering: edits in message space become directives in token space. Pure; knows no engine.

*Tokens never lie*: an edit is whatever the rendered tokens say it is. Each edit is applied and
rendered on its own, and the longest common prefix and suffix of the two renderings give its span.
Edits are taken from right to left, so every span comes out in the coordinates of the sequence
the engine holds, and applying the directives to it gives exactly the new tokens, up to where the
prompt was only appended to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from leyline_agent.directive import Directive, Mode, apply, strongest
from leyline_agent.edit import Edit
from leyline_agent.edit import apply as apply_edits
from leyline_agent.message import Message
from leyline_agent.receipt import Reason

__all__ = ["Lowered", "Lowering", "Renderer", "common_prefix", "common_suffix", "lower"]

_BLOCK = 512


class Renderer(Protocol):
    """Turns messages into the engine's tokens."""

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """The tokens of the messages, ending with the generation prompt."""
        ...


@dataclass(frozen=True)
class Lowered:
    """One directive and where it came from.

    Attributes:
        directive: the span is in coordinates of the previous sequence.
        edits: indices of the edits it carries out; () for an undeclared change.
        asked: the strongest mode those edits asked for.
        reason: why the directive's mode is not the one asked for, or ASKED.
    """

    directive: Directive
    edits: tuple[int, ...]
    asked: Mode
    reason: Reason = Reason.ASKED


@dataclass(frozen=True)
class Lowering:
    """What a commit is in token space.

    Attributes:
        items: directives, left to right, not overlapping.
        tokens: the new prompt, whole.
        appended: how many of its last tokens are new text behind everything edited.
        without: edits that changed no cached token, with the reason (NO_CHANGE or UNSEEN).
    """

    items: tuple[Lowered, ...]
    tokens: tuple[int, ...]
    appended: int
    without: Mapping[int, Reason]

    @property
    def directives(self) -> tuple[Directive, ...]:
        """The directives alone."""
        return tuple(item.directive for item in self.items)


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common prefix; compares block by block, in C."""
    limit = min(len(left), len(right))
    start = 0
    while start < limit and left[start : start + _BLOCK] == right[start : start + _BLOCK]:
        start += _BLOCK
    start = min(start, limit)
    while start < limit and left[start] == right[start]:
        start += 1
    return start


def common_suffix(left: Sequence[int], right: Sequence[int], limit: int) -> int:
    """Length of the longest common suffix, at most `limit`."""
    n, m = len(left), len(right)
    size = 0
    while size < limit:
        step = min(_BLOCK, limit - size)
        if left[n - size - step : n - size] != right[m - size - step : m - size]:
            break
        size += step
    while size < limit and left[n - size - 1] == right[m - size - 1]:
        size += 1
    return size


def lower(
    previous: Sequence[int],
    messages: Sequence[Message],
    edits: Sequence[Edit],
    renderer: Renderer,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Lowering:
    """Directives that turn `previous` into the prompt of the edited messages.

    Args:
        previous: the tokens whose KV the engine holds for the base version.
        messages: the view before the edits: the base version's messages (its prompt and reply)
            with this turn's new messages behind them.
        edits: a legal batch in indices of `messages` (`edit.check`).
        renderer: the engine's; called once for the unedited view and once for each edit.
        tools: tool specifications, part of what is rendered.

    Returns:
        The lowering. Everything behind the leftmost FORGET or undeclared change is FORGET.
    """
    previous = list(previous)
    current = renderer.render(messages, tools)
    held = common_prefix(previous, current)
    found: list[Lowered] = []
    without: dict[int, Reason] = {}
    edited = list(messages)
    for index in sorted(range(len(edits)), key=lambda i: edits[i].start, reverse=True):
        edited = apply_edits([edits[index]], edited)
        after = renderer.render(edited, tools)
        span = _span(current, after, found[-1].directive.start if found else len(current))
        if span is None:
            without[index] = Reason.NO_CHANGE
        elif span.start >= held:
            without[index] = Reason.UNSEEN if held == len(previous) else Reason.UNDECLARED
        else:
            found.append(_lowered(index, edits[index], span))
        current = after
    found.reverse()
    return _assemble(previous, held, found, tuple(current), without)


def _span(before: Sequence[int], after: Sequence[int], right: int) -> Directive | None:
    """The one span in which two renderings differ; it ends at or before `right` if it can."""
    prefix = common_prefix(before, after)
    if prefix == len(before) == len(after):
        return None
    limit = min(len(before), len(after)) - prefix
    suffix = common_suffix(before, after, limit)
    tail = len(before) - right
    if suffix < tail:
        # The greedy prefix ran into the next edit's span (repeated text): shift it back.
        shorter = min(tail, min(len(before), len(after)))
        if common_suffix(before, after, shorter) == shorter:
            suffix = shorter
            prefix = min(prefix, len(before) - suffix, len(after) - suffix)
    return Directive(prefix, len(before) - suffix, tuple(after[prefix : len(after) - suffix]))


def _lowered(index: int, edit: Edit, span: Directive) -> Lowered:
    mode = edit.effective_mode()
    return Lowered(span._replace(mode=mode), (index,), mode)


def _assemble(
    previous: list[int],
    held: int,
    found: list[Lowered],
    tokens: tuple[int, ...],
    without: dict[int, Reason],
) -> Lowering:
    """Clip at what is cached, merge what overlaps, strengthen what stands behind a FORGET."""
    merged = _merge(found)
    if not _consistent(previous, held, merged, tokens):
        # The template is not local: one edit changed text elsewhere. One honest diff instead.
        merged = _whole(previous, merged, tokens)
    elif held < len(previous):
        undeclared = Directive(held, len(previous), (), Mode.FORGET)
        merged = [m for m in merged if m.directive.end <= held]
        merged.append(Lowered(undeclared, (), Mode.FORGET, Reason.UNDECLARED))
    items = _strengthen(merged)
    kept = len(previous) + sum(item.directive.delta for item in items)
    for index in set(without):
        if any(index in item.edits for item in items):
            del without[index]
    return Lowering(tuple(items), tokens, len(tokens) - kept, without)


def _merge(found: list[Lowered]) -> list[Lowered]:
    """Neighbours whose spans overlap (a template that joins messages) become one directive."""
    result: list[Lowered] = []
    for item in found:
        if result and item.directive.start < result[-1].directive.end:
            return [_union(found)]
        result.append(item)
    return result


def _union(found: Sequence[Lowered]) -> Lowered:
    start = min(item.directive.start for item in found)
    end = max(item.directive.end for item in found)
    mode = strongest(*(item.asked for item in found))
    edits = tuple(sorted(index for item in found for index in item.edits))
    return Lowered(Directive(start, end, (), mode), edits, mode, Reason.MERGED)


def _consistent(
    previous: list[int], held: int, items: list[Lowered], tokens: tuple[int, ...]
) -> bool:
    if any(item.reason is Reason.MERGED for item in items):
        return False
    inside = [item.directive for item in items if item.directive.end <= held]
    if len(inside) < len(items) and held == len(previous):
        return False
    kept = apply(previous[:held], inside)
    return list(tokens[: len(kept)]) == kept


def _whole(previous: list[int], items: list[Lowered], tokens: tuple[int, ...]) -> list[Lowered]:
    """One directive from the direct diff of the two sequences; what follows it is appended."""
    prefix = common_prefix(previous, tokens)
    if prefix == len(previous):
        return []
    best = _best_tail(previous, tokens, prefix)
    edits = tuple(sorted(index for item in items for index in item.edits))
    mode = strongest(*(item.asked for item in items)) if items else Mode.FORGET
    span = Directive(prefix, len(previous), tuple(tokens[prefix:best]), mode)
    reason = Reason.MERGED if items else Reason.UNDECLARED
    return [Lowered(span, edits, mode, reason)]


def _best_tail(previous: list[int], tokens: tuple[int, ...], prefix: int) -> int:
    """Where the appended text begins when nothing behind `prefix` can be kept."""
    return max(prefix, min(len(tokens), prefix))


def _strengthen(items: Sequence[Lowered]) -> list[Lowered]:
    """Everything behind the leftmost FORGET is FORGET, with the reason."""
    result: list[Lowered] = []
    forgetting = False
    for item in items:
        if forgetting and item.directive.mode is not Mode.FORGET:
            item = replace(
                item,
                directive=item.directive._replace(mode=Mode.FORGET),
                reason=Reason.BEHIND_FORGET,
            )
        forgetting = forgetting or item.directive.mode is Mode.FORGET
        result.append(item)
    return result
