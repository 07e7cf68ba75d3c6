"""Edits outside a chat request: ahead of the next one, in token space, or forgetting afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from leyline_agent.adapter import Commit
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import InvalidRequest, StaleSession, UnknownSession
from leyline_agent.message import Message, digest, view_digest
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.chat_turn import tell
from leyline_agent.serving.prompt import Prompt
from leyline_agent.serving.scheduler import Job, Steps
from leyline_agent.serving.scrub import redact
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.turns import Turn, as_items, plan_ahead
from leyline_agent.serving.wire import DirectivesRequest, EditsRequest, TokenCommit
from leyline_agent.serving.work import Cached
from leyline_agent.versions import is_of

__all__ = [
    "apply_directives",
    "directives_job",
    "edit_ahead",
    "edits_job",
    "forget",
    "forget_job",
]


def edit_ahead(service: ChatService, request: EditsRequest, tenant: str = "") -> Receipt:
    """Apply a commit's edits now, so that the next request finds them done.

    Raises:
        UnknownSession: the session or its base version is not held here.
        StaleSession: another commit has the version's number.
        InvalidRequest: that version has no messages, or the digest is not theirs.
    """
    return service.scheduler.run(edits_job(service, request, tenant))


def edits_job(service: ChatService, request: EditsRequest, tenant: str = "") -> Job[Receipt]:
    """`edit_ahead` for the scheduler."""
    commit, view = request.leyline, request.messages

    def steps() -> Steps[Receipt]:
        with service.exclusive():
            session = _session(service, tenant, commit.session)
            again = session.made(commit.version, commit.base_version, commit.view_digest, view)
            if again is not None:
                return again.receipt
            base = _editable(session, commit, view)
        tools = base.tools if request.tools is None else request.tools

        def plan() -> Turn:
            _base(session, base.number)  # it may have been evicted while there was no room
            return plan_ahead(service.chat, view, tools, session, base, commit)

        turn, receipt, sequence = yield from _run(service, session, base, commit.version, plan)
        with service.exclusive():
            if any(edit.redact for edit in commit.edits):
                receipt = redact(service.engine, session, sequence, receipt, turn, view)
                service.chat.forget_texts()
            version = Version(
                number=commit.version,
                base=base.number,
                digest=commit.view_digest,
                messages=view,
                sequence=sequence,
                prompt_len=len(sequence),
                receipt=receipt,
                tools=tools,
            )
            session.add(version)
        return receipt

    return Job(steps, service.key(tenant, commit.session))


def _editable(session: EngineSession, commit: Commit, view: Sequence[Message]) -> Version:
    """The version a commit edits, if its messages are there to edit."""
    base = _base(session, commit.base_version)
    if base.messages is None:
        raise InvalidRequest(
            f"version {base.number} of session {session.id!r} was made of tokens; it has no "
            "messages to edit, only tokens (POST .../directives)"
        )
    if commit.view_digest not in ("", view_digest(digest(m) for m in view)):
        raise InvalidRequest("view_digest does not match the messages; nothing was edited")
    return base


def apply_directives(
    service: ChatService, session_id: str, request: DirectivesRequest, tenant: str = ""
) -> Receipt:
    """Apply token-space directives to a session: all of them, or none.

    Raises:
        InvalidSpan, OverlappingSpans: directives that do not fit the base version's tokens.
        InvalidRequest: token ids the model does not have.
        StaleSession: `base_version` is not the newest version, or another has the number.
        UnknownSession: the session is not held here.
    """
    return service.scheduler.run(directives_job(service, session_id, request, tenant))


def directives_job(
    service: ChatService, session_id: str, request: DirectivesRequest, tenant: str = ""
) -> Job[Receipt]:
    """`apply_directives` for the scheduler."""
    directives = [item.directive() for item in request.directives]
    for directive in directives:
        service.check_ids(directive.replacement)
    number = request.version or request.base_version + 1
    identity = hashlib.blake2b(repr(directives).encode(), digest_size=16).hexdigest()

    def steps() -> Steps[Receipt]:
        with service.exclusive():
            session = _session(service, tenant, session_id)
            held = session.versions.get(number)
            if held is not None and is_of(held, request.base_version, identity, None):
                return held.receipt
            newest = session.newest.number if session.newest else 0
            if request.base_version != newest:
                raise StaleSession(
                    f"session {session_id!r} is at version {newest}, not {request.base_version}; "
                    "read it again and lower the edits against its tokens"
                )
            session.made(number, newest, identity)  # raises where another commit has the number

        def plan() -> Turn:
            base = _base(session, newest).sequence
            tokens = apply(base.tokens, directives)
            items = as_items(directives)
            return Turn(Prompt(tokens, tenant, base, items, version=number, owner=session.id))

        base = session.versions[newest]
        _, receipt, sequence = yield from _run(service, session, base, number, plan)
        with service.exclusive():
            made = Version(number, newest, identity, None, sequence, len(sequence), receipt)
            session.add(replace(made, pending=base.pending))
        return receipt

    return Job(steps, service.key(tenant, session_id))


def forget(service: ChatService, session_id: str, edit_id: str, tenant: str = "") -> Receipt:
    """Make an earlier AMORTIZE or REPAIR edit a FORGET: what absorbed its span is computed again.

    The newest version keeps its number, for its tokens stay the same; older versions that
    absorbed the span are given up.

    Raises:
        UnknownSession: the session is not held here.
        InvalidRequest: the session never carried out an edit of that id.
    """
    return service.scheduler.run(forget_job(service, session_id, edit_id, tenant))


def forget_job(
    service: ChatService, session_id: str, edit_id: str, tenant: str = ""
) -> Job[Receipt]:
    """`forget` for the scheduler."""

    def steps() -> Steps[Receipt]:
        with service.exclusive():
            session = _session(service, tenant, session_id)
            newest = _forgettable(session, edit_id)

        def plan() -> Turn:
            sequence = _base(session, newest.number).sequence
            at, tokens = sequence.first_that_saw(edit_id), list(sequence.tokens)
            again = [] if at is None else [_computed_again(at, tokens)]
            items = as_items(again)
            prompt = Prompt(
                tokens, tenant, sequence, items, version=newest.number, owner=session.id
            )
            return Turn(prompt, Reason.ASKED if items else Reason.NO_CHANGE)

        _, receipt, sequence = yield from _run(service, session, newest, newest.number, plan)
        named = tuple(edit.model_copy(update={"id": edit_id}) for edit in receipt.edits)
        receipt = receipt.model_copy(update={"edits": named})
        with service.exclusive():
            session.add(replace(newest, sequence=sequence, receipt=receipt))
        return receipt

    return Job(steps, service.key(tenant, session_id))


def _forgettable(session: EngineSession, edit_id: str) -> Version:
    """The newest version; older ones that absorbed the span are given up."""
    if not any(edit.id == edit_id for r in session.receipts for edit in r.edits):
        raise InvalidRequest(
            f"session {session.id!r} has no edit {edit_id!r}; ids are in its receipts' edits"
        )
    for version in session.versions.values():
        saw = version.sequence.first_that_saw(edit_id) is not None
        if saw and version is not session.newest:
            version.evict()
    return _base(session, session.newest.number if session.newest else 0)


def _computed_again(at: int, tokens: Sequence[int]) -> Directive:
    return Directive(at, len(tokens), tuple(tokens[at:]), Mode.FORGET)


def _session(service: ChatService, tenant: str, session_id: str) -> EngineSession:
    session = service.sessions.find(tenant, session_id)
    if session is None or not session.versions:
        raise UnknownSession(
            f"session {session_id!r} is not held here; send the next request as usual, it is "
            "prefilled from its messages"
        )
    return session


def _base(session: EngineSession, number: int) -> Version:
    base = session.versions.get(number)
    if base is None or base.evicted:
        gone = "was evicted" if base else "is not held here"
        raise UnknownSession(
            f"version {number} of session {session.id!r} {gone}; send the next request as usual, "
            "it is prefilled from its messages"
        )
    return base


def _run(
    service: ChatService,
    session: EngineSession,
    base: Version,
    version: int,
    plan: Callable[[], Turn],
) -> Steps[tuple[Turn, Receipt, Cached]]:
    """Plan a turn and compute it; its receipt and its sequence."""
    turn, run = yield from service.running(plan)
    with service.exclusive():
        sequence = run.finish()
    commit = TokenCommit(session=session.id, base_version=base.number, version=version)
    return turn, tell(run.receipt, turn, commit), sequence
