"""What the proxy says of itself: its health, and the sessions of whoever asks."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

from leyline_adapters.proxy.asgi import Send, respond
from leyline_adapters.proxy.calls import Call
from leyline_adapters.proxy.problems import problem
from leyline_adapters.proxy.sessions import Sessions
from leyline_agent.session import Session

__all__ = ["JSON", "SESSIONS", "answer_about"]

SESSIONS = "/v1/leyline/sessions"
JSON = [(b"content-type", b"application/json")]


async def answer_about(sessions: Sessions, call: Call, send: Send) -> None:
    """Answer `/v1/leyline/...`: the caller's own sessions, or why there is no answer."""
    if call.method != "GET":
        message = "the proxy keeps its sessions' versions itself: they can be read here, not edited"
        await respond(send, 405, JSON, problem("openai", 405, "not_allowed", message))
        return
    found = _found(sessions, call)
    if found is None:
        message = f"no session {unquote(call.path.removeprefix(SESSIONS + '/'))!r} of this key"
        await respond(send, 404, JSON, problem("openai", 404, "unknown_session", message))
        return
    await respond(send, 200, JSON, json.dumps(found).encode())


def _found(sessions: Sessions, call: Call) -> dict[str, Any] | None:
    """What is asked for; None when there is no such session of the caller's."""
    if call.path == SESSIONS:
        data = [_listed(session) for session in sessions.of(call.tenant)]
        return {"object": "list", "data": data}
    id = unquote(call.path.removeprefix(SESSIONS + "/"))
    session = sessions.find(call.tenant, id)
    if session is not None:
        return {**_listed(session), **_details(session)}
    session = sessions.find(call.tenant, id.removesuffix("/receipts"))
    if session is None or not id.endswith("/receipts"):
        return None
    return {"object": "list", "data": [r.model_dump(mode="json") for r in session.receipts]}


def _listed(session: Session) -> dict[str, Any]:
    stats = session.stats()
    return {
        "id": session.id,
        "object": "leyline.session",
        "version": session.version,
        "adapter": session.adapter.name,
        "idle": session.is_idle,
        "turns": stats.turns,
        "failed": stats.failed,
        "edits": stats.edits,
        "skipped": stats.skipped,
        "prompt": stats.prompt,
        "reused_exact": stats.reused_exact,
        "reused_spliced": stats.reused_spliced,
        "recomputed": stats.recomputed,
        "prefilled": stats.prefilled,
    }


def _details(session: Session) -> dict[str, Any]:
    return {
        "history": len(session.history),
        "view": session.view,
        "last_skipped": [note._asdict() for note in session.skipped[-20:]],
        "oddities": [str(odd) for odd in session.oddities],
    }
