"""A turn between its commit and its receipt: what it builds on, and what it is in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leyline_adapters.vllm.client.planning import Limits, Plan, plan
from leyline_adapters.vllm.client.rendering import SessionRenderer, Tokens
from leyline_adapters.vllm.client.sessions import Session, Version
from leyline_agent.adapter import Commit
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered, common_prefix
from leyline_agent.message import Message, digest, view_digest
from leyline_agent.quoting import redacted_text
from leyline_agent.receipt import EditReceipt, Reason
from leyline_agent.undoing import Held, Undone, lower_commit

__all__ = ["Turn", "plan_ahead", "plan_chat", "plan_directives"]


@dataclass(frozen=True)
class Turn:
    """A turn ready to be asked for.

    Attributes:
        commit: the commit it carries out; of directives, made of their numbers.
        tokens: its prompt.
        before: the prompt as the server renders it, without replies put back; () of directives.
        messages: its view; None of directives.
        tools: what the view was rendered with.
        base: the version it builds on; None for an ordinary prefill.
        plan: how the prompt comes about.
        policies: of each of the plan's items, whose edit it is.
        redacts: whether an edit redacts.
        redacting: which receipts are of edits that redact, those without a directive counted in.
        removed: the text that redacting edits took away.
        without: receipts of edits that became no directive, each with the number of directives
            of edits before it.
        reason, detail: why the turn is not carried out as asked; ASKED when it is.
    """

    commit: Commit
    tokens: Sequence[int]
    before: Tokens
    messages: Sequence[Message] | None
    tools: Sequence[Mapping[str, Any]]
    base: Version | None
    plan: Plan
    policies: Sequence[str] = ()
    redacts: bool = False
    redacting: frozenset[int] = frozenset()
    removed: str = ""
    without: Sequence[tuple[int, EditReceipt]] = ()
    reason: Reason = Reason.ASKED
    detail: str = ""

    @property
    def previous(self) -> int:
        """Tokens of the base version whose KV is held."""
        return len(self.base.tokens) if self.base else 0


def plan_chat(
    renderer: SessionRenderer,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    session: Session,
    commit: Commit,
    limits: Limits,
) -> Turn:
    """The turn of a chat request. Whatever does not fit together is an ordinary prefill.

    Raises:
        StaleSession: another commit has the version's number.
    """
    again = session.made(commit.version, commit.base_version, commit.view_digest, messages)
    base = again or _known(session, commit)
    undone = None
    if base is not None and base.messages is not None:
        held = Held(base.number, base.messages, base.tokens)
        undone = Undone.of(held, messages, commit)
        renderer.render(undone.view, tools)  # first: it shows what replies read as
    tokens = renderer.render(messages, tools)
    before = renderer.plain(messages, tools)
    plain = _plain(commit, tokens, before, messages, tools, limits)
    if again is not None:
        return _claimed(replace(plain, reason=Reason.RETRY), again, limits)
    if commit.view_digest and commit.view_digest != view_digest(digest(m) for m in messages):
        wrong = "view_digest does not match the messages"
        return replace(plain, reason=Reason.DIGEST_MISMATCH, detail=wrong)
    if base is None:
        return _unknown(plain, session)
    if undone is None:  # made by directives: there are tokens to compare, but no messages
        return _claimed(plain, base, limits)
    return _edited(plain, base, renderer, limits)


def plan_ahead(
    renderer: SessionRenderer,
    view: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    base: Version,
    commit: Commit,
    limits: Limits,
) -> Turn:
    """The turn that makes a commit's edits and appends nothing."""
    before = renderer.plain(view, tools)
    turn = _edited(_plain(commit, (), before, view, tools, limits), base, renderer, limits)
    tokens = apply(base.tokens, [item.directive for item in turn.plan.items])
    return replace(
        turn, tokens=tokens, plan=plan(len(base.tokens), turn.plan.items, len(tokens), limits)
    )


def plan_directives(
    base: Version, commit: Commit, directives: Sequence[Directive], limits: Limits
) -> Turn:
    """The turn that makes edits of tokens.

    Raises:
        InvalidSpan, OverlappingSpans: directives that do not fit the base version's tokens.
    """
    tokens = apply(base.tokens, directives)
    items = [Lowered(each, (index,), each.mode) for index, each in enumerate(sorted(directives))]
    made = plan(len(base.tokens), items, len(tokens), limits)
    return Turn(commit, tokens, (), None, base.tools, base, made, [""] * len(items))


def _plain(
    commit: Commit,
    tokens: Sequence[int],
    before: Tokens,
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    limits: Limits,
) -> Turn:
    made = plan(0, (), len(tokens), limits)
    redacts = any(edit.redact for edit in commit.edits)
    return Turn(commit, tokens, before, messages, tools, None, made, redacts=redacts)


def _known(session: Session, commit: Commit) -> Version | None:
    return session.versions.get(commit.base_version) if commit.base_version else None


def _unknown(plain: Turn, session: Session) -> Turn:
    """An ordinary prefill, and why."""
    commit = plain.commit
    if commit.base_version:
        why = f"version {commit.base_version} of session {session.id!r} is not held here"
        return replace(plain, reason=Reason.UNKNOWN_SESSION, detail=why)
    if commit.version in session.versions:
        why = f"version {commit.version} of session {session.id!r} was made by another commit; "
        why += "the session begins anew"
        return replace(plain, reason=Reason.STALE_VERSION, detail=why)
    return plain


def _claimed(plain: Turn, base: Version, limits: Limits) -> Turn:
    """The prompt as what it has in common with the base's tokens, and the rest undeclared."""
    length = len(base.tokens)
    agreed = common_prefix(base.tokens, plain.tokens)
    why = plain.reason if plain.reason is Reason.RETRY else Reason.UNDECLARED
    rest = Lowered(Directive(agreed, length, (), Mode.FORGET), (), Mode.FORGET, why)
    items = (rest,) if agreed < length else ()
    made = plan(length, items, len(plain.tokens), limits)
    return replace(plain, base=base, plan=made, policies=[""] * len(items))


def _edited(plain: Turn, base: Version, renderer: SessionRenderer, limits: Limits) -> Turn:
    """The commit's edits, lowered on the base."""
    held = Held(base.number, base.messages or (), base.tokens)
    assert plain.messages is not None
    undone, lowering = lower_commit(
        held, plain.messages, plain.tools, plain.commit, renderer, plain.tokens or None
    )
    made = plan(len(base.tokens), lowering.items, len(lowering.tokens), limits)
    names = [
        next((undone.edits[i].policy for i in item.edits if undone.edits[i].policy), "")
        for item in lowering.items
    ]
    without = undone.without(lowering)
    redacts = [any(undone.edits[i].redact for i in item.edits) for item in lowering.items]
    for at, redact, _ in reversed(without):
        redacts.insert(at, redact)
    return replace(
        plain,
        tokens=lowering.tokens,
        base=base,
        plan=made,
        policies=names,
        redacting=frozenset(index for index, redact in enumerate(redacts) if redact),
        removed=redacted_text(undone.view, undone.edits),
        without=[(at, receipt) for at, _, receipt in without],
        detail="; ".join(one.told(held) for one in undone.unseen),
    )
