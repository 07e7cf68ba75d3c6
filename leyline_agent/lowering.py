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

from leyline_agent.directive import Directive, Mode, strongest
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
    edited: Sequence[int] | None = None,
) -> Lowering:
    """Directives that turn `previous` into the prompt of the edited messages.

    Args:
        previous: the tokens whose KV the engine holds for the base version.
        messages: the view before the edits: the base version's messages (its prompt and reply)
            with this turn's new messages behind them.
        edits: a legal batch in indices of `messages` (`edit.check`).
        renderer: the engine's; called once for the unedited view and once for each edit.
        tools: tool specifications, part of what is rendered.
        edited: the tokens of the edited messages, where the caller has rendered them: that saves
            one rendering.

    Returns:
        The lowering. Everything behind the leftmost FORGET or undeclared change is FORGET.
    """
    if edited is not None and not edits:
        unedited = list(edited)
    else:
        unedited = renderer.render(messages, tools)
    found, tokens, unchanged = _diff_each(unedited, messages, edits, renderer, tools, edited)
    held = common_prefix(previous, unedited)
    items = _clip(found, held, len(previous))
    lost = Reason.UNSEEN if held == len(previous) else Reason.UNDECLARED
    cached = {index for item in items for index in item.edits}
    without = {index: lost for index in range(len(edits)) if index not in cached}
    without.update(dict.fromkeys(unchanged, Reason.NO_CHANGE))
    kept = len(previous) + sum(item.directive.delta for item in items)
    return Lowering(tuple(_strengthen(items)), tuple(tokens), len(tokens) - kept, without)


def _diff_each(
    unedited: list[int],
    messages: Sequence[Message],
    edits: Sequence[Edit],
    renderer: Renderer,
    tools: Sequence[Mapping[str, Any]],
    edited: Sequence[int] | None,
) -> tuple[list[Lowered], list[int], list[int]]:
    """Each edit's span in `unedited`, left to right; the edited tokens; edits without effect."""
    found: list[Lowered] = []
    unchanged: list[int] = []
    current, view = unedited, list(messages)
    overlapping = False
    # From the right, so that places hold: what is inserted at a span's start goes in behind it.
    order = sorted(range(len(edits)), key=lambda i: (edits[i].start, edits[i].end), reverse=True)
    for number, index in enumerate(order, 1):
        if edited is not None and number == len(order):
            after = list(edited)
        else:
            view = apply_edits([edits[index]], view)
            after = renderer.render(view, tools)
        right = found[-1].directive.start if found else len(current)
        span = _span(current, after, right)
        current = after
        if span is None:
            unchanged.append(index)
            continue
        overlapping = overlapping or span.end > right or (span.end == right == span.start)
        mode = edits[index].effective_mode()
        found.append(Lowered(span._replace(mode=mode), (index,), mode))
    if overlapping and len(found) > 1:
        # The template is not local: one edit changed text far away. One honest diff instead.
        return _diff_whole(unedited, current, found), current, unchanged
    found.reverse()
    return found, current, unchanged


def _diff_whole(before: list[int], after: list[int], found: list[Lowered]) -> list[Lowered]:
    span = _span(before, after, len(before))
    if span is None:
        return []
    mode = strongest(*(item.asked for item in found))
    edits = tuple(sorted(index for item in found for index in item.edits))
    return [Lowered(span._replace(mode=mode), edits, mode, Reason.MERGED)]


def _span(before: Sequence[int], after: Sequence[int], right: int) -> Directive | None:
    """The one span in which two renderings differ; it ends at or before `right` if it can."""
    prefix = common_prefix(before, after)
    if prefix == len(before) == len(after):
        return None
    shorter = min(len(before), len(after))
    suffix = common_suffix(before, after, shorter - prefix)
    tail = len(before) - right
    if suffix < tail <= shorter and common_suffix(before, after, tail) == tail:
        # Repeated text let the greedy prefix run into the next edit's span: shift it back.
        suffix = tail
        prefix = min(prefix, shorter - suffix)
    return Directive(prefix, len(before) - suffix, tuple(after[prefix : len(after) - suffix]))


def _clip(found: Sequence[Lowered], held: int, length: int) -> list[Lowered]:
    """Spans as the engine can carry them out: it holds `length` tokens, `held` of them valid."""
    items: list[Lowered] = []
    for item in found:
        start, end, replacement, _ = item.directive
        if start >= held:
            break
        if end > held:
            # Behind the span nothing valid is cached; what comes there is appended text.
            cut = item.directive._replace(end=length, replacement=replacement)
            if held < length:
                cut = cut._replace(replacement=(), mode=Mode.FORGET)
                item = replace(item, reason=Reason.UNDECLARED)
            return [*items, replace(item, directive=cut)]
        items.append(item)
    if held < length:
        undeclared = Directive(held, length, (), Mode.FORGET)
        items.append(Lowered(undeclared, (), Mode.FORGET, Reason.UNDECLARED))
    return items


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
