"""Edits outside a chat request: ahead of the next one, in token space, or forgetting afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import AdapterError, StaleSession
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Prompt
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.turns import Turn, plan_ahead
from leyline_agent.serving.wire import DirectivesRequest, EditsRequest

__all__ = ["apply_directives", "edit_ahead", "forget"]


def edit_ahead(service: ChatService, request: EditsRequest, tenant: str = "") -> Receipt:
    """Apply a commit's edits now, so that the next request finds them done.

    Raises:
        AdapterError: the session or its base version is not held here.
    """
    commit = request.leyline
    with service.exclusive():
        session, base = _base(service, tenant, commit.session, commit.base_version)
        turn = plan_ahead(
            service.chat, request.messages, request.tools or [], session, base, commit
        )
        return _commit(service, session, base, turn, commit.version, request.messages)


def apply_directives(
    service: ChatService, session_id: str, request: DirectivesRequest, tenant: str = ""
) -> Receipt:
    """Apply token-space directives to a session: all of them, or none.

    Raises:
        InvalidSpan, OverlappingSpans: directives that do not fit the base version's tokens.
        StaleSession: `base_version` is not the newest version.
        AdapterError: the session is not held here.
    """
    directives = [item.directive() for item in request.directives]
    with service.exclusive():
        session, base = _base(service, tenant, session_id, request.base_version)
        if base is not session.newest:
            newest = session.newest.number if session.newest else 0
            raise StaleSession(
                f"session {session_id!r} is at version {newest}, not {request.base_version}; "
                "read it again and lower the edits against its tokens"
            )
        tokens = apply(base.sequence.tokens, directives)
        items = [
            Lowered(directive, (index,), directive.mode)
            for index, directive in enumerate(sorted(directives))
        ]
        version = request.version or base.number + 1
        prompt = Prompt(tokens, tenant, base.sequence, items, 0, version)
        return _commit(service, session, base, Turn(prompt), version, None)


def forget(service: ChatService, session_id: str, edit_id: str, tenant: str = "") -> Receipt:
    """Make an earlier AMORTIZE or REPAIR edit a FORGET: what absorbed its span is computed again.

    Raises:
        AdapterError: the session is not held here.
    """
    with service.exclusive():
        session = service.sessions.find(tenant, session_id)
        newest = session.newest if session else None
        if session is None or newest is None or newest.evicted:
            raise AdapterError(f"session {session_id!r} holds no cached version; nothing to forget")
        at = newest.sequence.first_that_saw(edit_id)
        tokens = list(newest.sequence.tokens)
        items: Sequence[Lowered] = ()
        if at is not None:
            again = Directive(at, len(tokens), tuple(tokens[at:]), Mode.FORGET)
            items = (Lowered(again, (), Mode.FORGET),)
        version = newest.number + 1
        prompt = Prompt(tokens, tenant, newest.sequence, items, 0, version)
        turn = Turn(prompt, Reason.ASKED if items else Reason.NO_CHANGE)
        return _commit(service, session, newest, turn, version, newest.messages)


def _base(
    service: ChatService, tenant: str, session_id: str, number: int
) -> tuple[EngineSession, Version]:
    session = service.sessions.find(tenant, session_id)
    base = session.versions.get(number) if session else None
    if session is None or base is None or base.evicted:
        raise AdapterError(
            f"version {number} of session {session_id!r} is not held here; send the next request "
            "as usual, it is prefilled from its messages"
        )
    return session, base


def _commit(
    service: ChatService,
    session: EngineSession,
    base: Version,
    turn: Turn,
    version: int,
    messages: Any,
) -> Receipt:
    run = service.engine.start(turn.prompt)
    receipt = run.receipt.model_copy(
        update={
            "session": session.id,
            "base_version": base.number,
            "version": version,
            "reason": turn.reason,
        }
    )
    sequence = run.finish()
    session.add(
        Version(version, base.number, "", messages, sequence, len(sequence.tokens), receipt)
    )
    return receipt
