"""Planning against a server: what a request becomes, and edits that are made without a reply."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from leyline_adapters.bundled.connection import Connection
from leyline_adapters.vllm.client.answers import committed
from leyline_adapters.vllm.client.asking import COMPLETIONS, Asking, Server, session_header
from leyline_adapters.vllm.client.call import Call, PlainCall, PlannedCall, unplanned
from leyline_adapters.vllm.client.planning import Limits
from leyline_adapters.vllm.client.rendering import ServerRenderer, SessionRenderer
from leyline_adapters.vllm.client.sessions import Session, Sessions, Version
from leyline_adapters.vllm.client.turn import Turn, plan_ahead, plan_chat, plan_directives
from leyline_adapters.vllm.wire import KEY, Ask
from leyline_agent.adapter import Commit
from leyline_agent.directive import Directive
from leyline_agent.errors import InvalidRequest, StaleSession, UnknownSession
from leyline_agent.message import Message, digest, view_digest
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.versions import is_of

__all__ = ["Planner"]

_WORD = ("usage", "kv_transfer_params")  # of a request whose token nobody reads


class Planner:
    """Plans turns of one tenant, and runs whatever must be computed before the turn itself.

    Args:
        connection: the server.
        salt: the tenant's cache salt; "" for the common one.
        model: the name to ask for; None for whatever is served.
        limits: what is worth a request of its own.
    """

    def __init__(
        self, connection: Connection, salt: str, model: str | None, limits: Limits
    ) -> None:
        self._connection = connection
        self._salted = {"cache_salt": salt} if salt else {}
        self._named = {"model": model} if model else {}
        self._limits = limits
        self._renderer = ServerRenderer(lambda body: self._send("/tokenize", body))
        self._server = Server(salt, self._renderer.forget)
        self._sessions = Sessions()

    def call(self, asked: dict[str, Any], commit: Commit | None) -> Call:
        """A chat request ready to be sent, with all its stages but the last one computed."""
        why = unplanned(asked) if commit else ""
        if commit is None or why:
            return PlainCall({**asked, **self._salted}, commit, why)
        return PlannedCall(asked, self._chat(asked, commit))

    def _chat(self, asked: Mapping[str, Any], commit: Commit) -> Asking:
        started = time.perf_counter()
        session = self._sessions.open(commit.session)
        renderer = SessionRenderer.of(self._renderer, session.replies, asked)
        turn = plan_chat(renderer, asked["messages"], _tools(asked), session, commit, self._limits)
        asking = self._asking(session, turn, started)
        with asking:
            asking.run_stages(self._sender(session.id))
        return asking

    def ahead(self, asked: Mapping[str, Any], commit: Commit) -> Receipt:
        """Make a commit's edits now.

        Raises:
            UnknownSession: the session or its base version is not held here.
            StaleSession: another commit has the version's number.
            InvalidRequest: that version has no messages, or the digest is not theirs.
        """
        session, view = self._session(commit.session), asked["messages"]
        again = session.made(commit.version, commit.base_version, commit.view_digest, view)
        if again is not None:
            return again.receipt
        base = _editable(session, commit, view)
        tools = _tools(asked) if asked.get("tools") is not None else base.tools
        renderer = SessionRenderer.of(self._renderer, session.replies, asked)
        return self._made(session, plan_ahead(renderer, view, tools, base, commit, self._limits))

    def directives(self, name: str, base_version: int, directives: Sequence[Directive]) -> Receipt:
        """Make edits of tokens: all of them, or none.

        Raises:
            InvalidSpan, OverlappingSpans: directives that do not fit the base version's tokens.
            StaleSession: `base_version` is not the newest version, or another has the number.
            UnknownSession: the session is not held here.
        """
        session, number = self._session(name), base_version + 1
        identity = hashlib.blake2b(repr(directives).encode(), digest_size=16).hexdigest()
        held = session.versions.get(number)
        if held is not None and is_of(held, base_version, identity, None):
            return held.receipt
        newest = session.newest
        if newest is None or newest.number != base_version:
            raise StaleSession(
                f"session {name!r} is at version {newest.number if newest else 0}, not "
                f"{base_version}; read it again and lower the edits against its tokens"
            )
        commit = Commit(
            session=name, base_version=base_version, version=number, view_digest=identity
        )
        return self._made(session, plan_directives(newest, commit, directives, self._limits))

    def drop(self, name: str) -> bool:
        """Forget a session, and tell the server so; whether there was one."""
        session = self._sessions.drop(name)
        if session is None:
            return False
        if session.released:
            ask = Ask(session=name, keep=False, release=session.take_released())
            params = {KEY: ask.model_dump()}
            body = {"prompt": [0], "max_tokens": 1, "kv_transfer_params": params, **self._salted}
            self._sender(name)(COMPLETIONS, body)
        return True

    def _made(self, session: Session, turn: Turn) -> Receipt:
        """A turn without a reply."""
        asking = self._asking(session, turn, time.perf_counter())
        with asking:
            send = self._sender(session.id)
            asking.run_stages(send)
            answer = send(COMPLETIONS, asking.stage_body(asking.last(), turn.tokens))
            return committed(asking, {key: answer.get(key) for key in _WORD})

    def _asking(self, session: Session, turn: Turn, started: float) -> Asking:
        return Asking(session, _with_what_is_held(turn), self._server, started)

    def _session(self, name: str) -> Session:
        session = self._sessions.find(name)
        if session is None or not session.versions:
            raise UnknownSession(
                f"session {name!r} is not held here; send the next request as usual, it is "
                "prefilled from its messages"
            )
        return session

    def _send(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return self._connection.send("POST", path, {**body, **self._named}, headers)

    def _sender(self, session: str) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
        """`_send` for one session."""
        return partial(self._send, headers=session_header(session))


def _tools(asked: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = asked.get("tools") or ()
    return found


def _with_what_is_held(turn: Turn) -> Turn:
    """A turn whose base the server holds no KV of, with the reason."""
    if turn.base is None or turn.base.handle or turn.reason is not Reason.ASKED:
        return turn
    detail = f"the server holds no KV of version {turn.base.number}"
    return replace(turn, reason=Reason.EVICTED, detail=detail)


def _editable(session: Session, commit: Commit, view: Sequence[Message]) -> Version:
    """The version a commit edits, if its messages are there to edit."""
    base = session.versions.get(commit.base_version)
    if base is None:
        raise UnknownSession(
            f"version {commit.base_version} of session {session.id!r} is not held here; send the "
            "next request as usual, it is prefilled from its messages"
        )
    if base.messages is None:
        raise InvalidRequest(
            f"version {base.number} of session {session.id!r} was made of tokens; it has no "
            "messages to edit, only tokens"
        )
    if commit.view_digest not in ("", view_digest(digest(m) for m in view)):
        raise InvalidRequest("view_digest does not match the messages; nothing was edited")
    return base
