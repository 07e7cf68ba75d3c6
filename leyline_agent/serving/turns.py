"""Turns: from a request's messages and commit to the engine's prompt, and back to a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leyline_agent.adapter import Commit
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import InvalidRequest
from leyline_agent.lowering import Lowered, Lowering, common_prefix
from leyline_agent.message import Message, digest, view_digest
from leyline_agent.quoting import redacted_text
from leyline_agent.receipt import EditReceipt, Reason
from leyline_agent.serving.prompt import Prompt
from leyline_agent.serving.render import ChatRenderer, SessionRenderer
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.wire import TokenCommit
from leyline_agent.undoing import Held, Undone, Unseen, lower_commit

__all__ = ["Turn", "as_items", "plan_ahead", "plan_chat", "plan_tokens"]


@dataclass(frozen=True)
class Turn:
    """A prompt ready for the engine.

    Attributes:
        prompt: what to run.
        reason: why the turn is not carried out as asked; ASKED when it is.
        detail: the reason in words; edits of messages never seen, and where they reach.
        removed: the text that redacting edits took away.
        without: receipts of edits that became no directive, each with the number of directives
            that stand before it.
        redacting: which receipts are of edits that redact, those without a directive counted in.
    """

    prompt: Prompt
    reason: Reason = Reason.ASKED
    detail: str = ""
    removed: str = ""
    without: tuple[tuple[int, EditReceipt], ...] = ()
    redacting: frozenset[int] = frozenset()


def plan_chat(
    chat: ChatRenderer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    tenant: str,
    session: EngineSession | None,
    commit: Commit | None,
) -> Turn:
    """The prompt of a chat request. Whatever does not fit together is an ordinary prefill.

    Raises:
        StaleSession: another commit has the version's number.
        ContextOverflow: the messages are far too long.
    """
    chat.check_size(messages)
    if session is None or commit is None:
        return Turn(Prompt(chat.render(messages, tools), tenant))
    tokens = SessionRenderer(chat, session.replies).render(messages, tools)
    plain = Prompt(tokens, tenant, version=commit.version, owner=session.id)
    again = session.made(commit.version, commit.base_version, commit.view_digest, messages)
    if commit.view_digest and commit.view_digest != view_digest(digest(m) for m in messages):
        return Turn(plain, Reason.DIGEST_MISMATCH, "view_digest does not match the messages")
    base = _known(session, again, commit.base_version, plain)
    if isinstance(base, Turn):
        return base
    if base.messages is None:  # made by directives: there are tokens to compare, but no messages
        return _claimed(plain, base, ())
    try:
        edited = _lowered(chat, messages, tools, session, base, commit, tokens)
    except InvalidRequest as error:
        return _unlowered(plain, base, messages, commit, error)
    prompt = replace(
        plain,
        tokens=list(edited.lowering.tokens),
        previous=base.sequence,
        items=edited.lowering.items,
        appended=edited.lowering.appended,
        policies=[edit.policy for edit in edited.undone.edits],
    )
    return edited.turn(prompt)


def plan_ahead(
    chat: ChatRenderer,
    view: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    session: EngineSession,
    base: Version,
    commit: Commit,
) -> Turn:
    """The prompt that applies a commit's edits to the cached sequence and appends nothing."""
    edited = _lowered(chat, view, tools, session, base, commit)
    prompt = Prompt(
        tokens=apply(base.sequence.tokens, edited.lowering.directives),
        tenant=session.tenant,
        previous=base.sequence,
        items=edited.lowering.items,
        appended=0,
        version=commit.version,
        policies=[edit.policy for edit in edited.undone.edits],
        owner=session.id,
    )
    return edited.turn(prompt)


@dataclass(frozen=True)
class _Edited:
    """A commit's edits on the view before them, lowered; `base` is the version they start from."""

    undone: Undone
    lowering: Lowering
    base: Held

    def turn(self, prompt: Prompt) -> Turn:
        """The turn that runs `prompt`, the lowering's."""
        edits = self.undone.edits
        items = self.lowering.items
        redacts = [any(edits[i].redact for i in item.edits) for item in items]
        without = self.undone.without(self.lowering)
        for at, redact, _ in reversed(without):
            redacts.insert(at, redact)
        return Turn(
            prompt,
            detail="; ".join(one.told(self.base) for one in self.undone.unseen),
            removed=redacted_text(self.undone.view, edits),
            without=tuple((at, receipt) for at, _, receipt in without),
            redacting=frozenset(index for index, redact in enumerate(redacts) if redact),
        )


def _lowered(
    chat: ChatRenderer,
    view: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    session: EngineSession,
    base: Version,
    commit: Commit,
    tokens: Sequence[int] | None = None,
) -> _Edited:
    renderer = SessionRenderer(chat, session.replies)
    held = _held(base)
    undone, lowering = lower_commit(held, view, tools, commit, renderer, tokens)
    return _Edited(undone, lowering, held)


def _unlowered(
    plain: Prompt,
    base: Version,
    messages: Sequence[Message],
    commit: Commit,
    error: InvalidRequest,
) -> Turn:
    """A turn whose edits cannot be told apart: a template may refuse a view between two edits."""
    undone = Undone.of(_held(base), messages, commit)
    receipts = (Unseen(0, edit, Reason.INVALID_EDIT) for edit in commit.edits)
    redacts = (index for index, edit in enumerate(commit.edits) if edit.redact)
    return replace(
        _claimed(plain, base, ()),
        reason=Reason.INVALID_EDIT,
        detail=f"the view before the edits cannot be rendered: {error}",
        removed=redacted_text(undone.view, undone.edits),
        without=tuple((0, one.receipt) for one in receipts),
        redacting=frozenset(redacts),
    )


def _held(base: Version) -> Held:
    """The version as what a commit's edits start from."""
    return Held(base.number, base.messages or (), base.sequence.tokens)


def plan_tokens(
    tokens: Sequence[int],
    tenant: str,
    session: EngineSession | None,
    commit: TokenCommit | None,
    digest: str = "",
) -> Turn:
    """The prompt of a token-level request: `tokens`, said to be the commit's directives and more.

    The claim is checked: where the directives do not lead to `tokens`, the rest is FORGET.

    Raises:
        InvalidSpan, OverlappingSpans: directives that do not fit the base version's tokens.
        StaleSession: another commit has the version's number.
    """
    if session is None or commit is None:
        return Turn(Prompt(list(tokens), tenant))
    plain = Prompt(list(tokens), tenant, version=commit.version, owner=session.id)
    again = session.made(commit.version, commit.base_version, digest)
    known = _known(session, again, commit.base_version, plain)
    if isinstance(known, Turn):
        return known
    return _claimed(plain, known, [item.directive() for item in commit.directives])


def as_items(directives: Iterable[Directive]) -> tuple[Lowered, ...]:
    """Directives that came as such, in order."""
    return tuple(
        Lowered(directive, (index,), directive.mode)
        for index, directive in enumerate(sorted(directives))
    )


def _known(
    session: EngineSession, again: Version | None, base_version: int, plain: Prompt
) -> Version | Turn:
    """The version a commit builds on; or the whole turn, where there is nothing to build on."""
    if again is not None:
        return _retry(again, plain)
    if base_version == 0 and plain.version in session.versions:
        why = f"version {plain.version} of session {session.id!r} was made by another commit; "
        return Turn(plain, Reason.STALE_VERSION, why + "the session begins anew")
    if base_version == 0:
        return Turn(plain)
    base = session.versions.get(base_version)
    if base is None:
        why = f"version {base_version} of session {session.id!r} is not held here"
        return Turn(plain, Reason.UNKNOWN_SESSION, why)
    if base.evicted:
        return Turn(plain, Reason.EVICTED, f"version {base.number} was evicted")
    return base


def _claimed(plain: Prompt, base: Version, directives: Sequence[Directive]) -> Turn:
    """The prompt as directives on the base's tokens, as far as those lead to it."""
    previous = base.sequence.tokens
    claimed = apply(previous, directives)
    items = as_items(directives)
    agreed = common_prefix(claimed, plain.tokens)
    if agreed < len(claimed):
        items = _truncated(items, agreed, len(previous))
    kept = len(previous) + sum(item.directive.delta for item in items)
    appended = len(plain.tokens) - kept
    return Turn(replace(plain, previous=base.sequence, items=items, appended=appended))


def _truncated(items: Sequence[Lowered], agreed: int, length: int) -> tuple[Lowered, ...]:
    """The directives that hold before position `agreed` of the result; the rest is dropped."""
    result: list[Lowered] = []
    shift, stop = 0, length
    for item in items:
        directive = item.directive
        if directive.start + shift + len(directive.replacement) > agreed:
            stop = directive.start
            break
        shift += directive.delta
        result.append(item)
    rest = Directive(min(agreed - shift, stop), length, (), Mode.FORGET)
    return (*result, Lowered(rest, (), Mode.FORGET, Reason.UNDECLARED))


def _retry(again: Version, plain: Prompt) -> Turn:
    """The same commit once more: its prompt is cached already and no edit acts twice."""
    if again.evicted:
        return Turn(plain, Reason.EVICTED, f"version {again.number} was evicted")
    prompt = _claimed(plain, again, ()).prompt
    items = tuple(replace(item, reason=Reason.RETRY) for item in prompt.items)
    return Turn(replace(prompt, items=items), Reason.RETRY)
