"""Turns: from a request's messages and commit to the engine's prompt, and back to a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leyline_agent.adapter import Commit, WireEdit
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.edit import Edit
from leyline_agent.lowering import Lowered, common_prefix, lower
from leyline_agent.message import Message, digest, text, view_digest
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Prompt
from leyline_agent.serving.render import ChatRenderer, SessionRenderer
from leyline_agent.serving.sessions import EngineSession, Version

__all__ = ["Turn", "plan_ahead", "plan_chat", "plan_tokens"]


@dataclass(frozen=True)
class Turn:
    """A prompt ready for the engine.

    Attributes:
        prompt: what to run.
        reason: why the turn is not carried out as asked; ASKED when it is.
        detail: the reason in words.
        removed: the text that redacting edits took away.
    """

    prompt: Prompt
    reason: Reason = Reason.ASKED
    detail: str = ""
    removed: str = ""


def plan_chat(
    chat: ChatRenderer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    tenant: str,
    session: EngineSession | None,
    commit: Commit | None,
) -> Turn:
    """The prompt of a chat request. Whatever does not fit together is an ordinary prefill."""
    if session is None or commit is None:
        return Turn(Prompt(chat.render(messages, tools), tenant))
    renderer = SessionRenderer(chat, session.replies)
    plain = Prompt(renderer.render(messages, tools), tenant, version=commit.version)
    if commit.view_digest and commit.view_digest != view_digest(digest(m) for m in messages):
        return Turn(plain, Reason.DIGEST_MISMATCH, "view_digest does not match the messages")
    again = session.versions.get(commit.version)
    if again is not None and _is_retry(again, commit):
        return _retry(again, tenant, plain)
    if commit.base_version == 0:
        return Turn(plain)
    base = session.versions.get(commit.base_version)
    if base is None or base.messages is None:
        why = f"version {commit.base_version} of session {commit.session!r} is not held here"
        return Turn(plain, Reason.UNKNOWN_SESSION, why)
    if base.evicted:
        return Turn(plain, Reason.EVICTED, f"version {base.number} was evicted")
    unedited, edits = _undo(base.messages, messages, commit.edits)
    lowering = lower(base.sequence.tokens, unedited, edits, renderer, tools=tools)
    prompt = Prompt(
        tokens=list(lowering.tokens),
        tenant=tenant,
        previous=base.sequence,
        items=lowering.items,
        appended=lowering.appended,
        version=commit.version,
        policies=[edit.policy for edit in edits],
    )
    return Turn(prompt, removed=_redacted(unedited, edits))


def plan_ahead(
    chat: ChatRenderer,
    view: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    session: EngineSession,
    base: Version,
    commit: Commit,
) -> Turn:
    """The prompt that applies a commit's edits to the cached sequence and appends nothing."""
    renderer = SessionRenderer(chat, session.replies)
    unedited, edits = _undo(base.messages or (), view, commit.edits)
    lowering = lower(base.sequence.tokens, unedited, edits, renderer, tools=tools)
    # The reply may end before its end-of-turn token; what is rendered behind it comes later.
    items = tuple(i for i in lowering.items if i.edits or i.directive.end < len(base.sequence))
    tokens = apply(base.sequence.tokens, [item.directive for item in items])
    prompt = Prompt(
        tokens=tokens,
        tenant=session.tenant,
        previous=base.sequence,
        items=items,
        appended=0,
        version=commit.version,
        policies=[edit.policy for edit in edits],
    )
    return Turn(prompt, removed=_redacted(unedited, edits))


def plan_tokens(
    tokens: Sequence[int],
    directives: Sequence[Directive],
    tenant: str,
    base: Version | None,
    version: int,
    reason: Reason = Reason.ASKED,
) -> Turn:
    """The prompt of a token-level request: `tokens`, said to be `directives` and more.

    The claim is checked: where the directives do not lead to `tokens`, the rest is FORGET.

    Raises:
        InvalidSpan, OverlappingSpans: directives that do not fit the base version's tokens.
    """
    if base is None or base.evicted:
        why = Reason.EVICTED if base is not None else reason
        return Turn(Prompt(list(tokens), tenant, version=version), why)
    previous = base.sequence.tokens
    claimed = apply(previous, directives)
    agreed = common_prefix(claimed, tokens)
    items = [
        Lowered(directive, (index,), directive.mode)
        for index, directive in enumerate(sorted(directives))
    ]
    if agreed < len(claimed):
        items = _truncated(items, agreed, len(previous))
    kept = len(previous) + sum(item.directive.delta for item in items)
    prompt = Prompt(
        tokens=list(tokens),
        tenant=tenant,
        previous=base.sequence,
        items=items,
        appended=len(tokens) - kept,
        version=version,
    )
    return Turn(prompt)


def _truncated(items: Sequence[Lowered], agreed: int, length: int) -> list[Lowered]:
    """The directives that hold before position `agreed` of the result; the rest is dropped."""
    result: list[Lowered] = []
    shift = 0
    for item in items:
        directive = item.directive
        if directive.start + shift + len(directive.replacement) > agreed:
            break
        shift += directive.delta
        result.append(item)
    start = agreed - shift
    end_of_last = result[-1].directive.end if result else 0
    start = max(start, end_of_last)
    rest = Directive(start, length, (), Mode.FORGET)
    return [*result, Lowered(rest, (), Mode.FORGET, Reason.UNDECLARED)]


def _redacted(unedited: Sequence[Message], edits: Sequence[Edit]) -> str:
    return "\n".join(
        text(message)
        for edit in edits
        if edit.redact
        for message in unedited[edit.start : edit.end]
    )


def _is_retry(again: Version, commit: Commit) -> bool:
    return again.base == commit.base_version and again.digest == commit.view_digest


def _retry(again: Version, tenant: str, plain: Prompt) -> Turn:
    """The same commit once more: its prompt is cached already and no edit acts twice."""
    if again.evicted:
        return Turn(plain, Reason.EVICTED, f"version {again.number} was evicted")
    kept = again.sequence.tokens[: again.prompt_len]
    if kept != plain.tokens:
        return Turn(plain, Reason.RETRY)
    rest = Directive(again.prompt_len, len(again.sequence), (), Mode.FORGET)
    items = (Lowered(rest, (), Mode.FORGET, Reason.RETRY),) if rest.start < rest.end else ()
    return Turn(replace(plain, previous=again.sequence, items=items), Reason.RETRY)


def _undo(
    base: Sequence[Message], view: Sequence[Message], edits: Sequence[WireEdit]
) -> tuple[list[Message], list[Edit]]:
    """The view before its edits, and the edits on it.

    Messages an edit replaced come from the base version; edits of messages the engine has never
    seen need no undoing.
    """
    unedited: list[Message] = []
    found: list[Edit] = []
    cursor = at = 0  # in the unedited view, in the edited view
    for edit in sorted(edits, key=lambda e: e.messages):
        start, end = edit.messages
        same = max(0, start - cursor)
        unedited.extend(view[at : at + same])
        at += same
        new = tuple(view[at : at + edit.count])
        at += edit.count
        cursor = end
        old = list(base[start:end])
        if len(old) < end - start:  # reaches into messages not seen before
            unedited.extend(new)
            continue
        place = len(unedited)
        unedited.extend(old)
        found.append(
            Edit(place, place + len(old), new, edit.mode, edit.reason, edit.policy, edit.redact)
        )
    unedited.extend(view[at:])
    return unedited, found
