"""Leyline's endpoints: sessions, edits ahead of a request, directives, forgetting, receipts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from leyline_agent.errors import InvalidRequest, UnknownSession
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.edits import directives_job, edits_job, forget_job
from leyline_agent.serving.scheduler import Job
from leyline_agent.serving.server.desk import TheDesk
from leyline_agent.serving.server.tenant import Tenant
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.wire import DirectivesRequest, EditsRequest

__all__ = ["ForgetRequest", "router"]

# An id may hold slashes; the routes that end in a word come first.
router = APIRouter(prefix="/v1/leyline/sessions/{session_id:path}")


class ForgetRequest(BaseModel):
    """`POST /v1/leyline/sessions/{id}/forget`: `edit_id` is the id in an edit's receipt."""

    model_config = ConfigDict(extra="forbid")

    edit_id: str = Field(min_length=1)


@router.post("/edits")
async def edits(session_id: str, body: EditsRequest, desk: TheDesk, tenant: Tenant) -> Receipt:
    """Apply a commit's edits now, so that the next request finds them done."""
    if body.leyline.session != session_id:
        raise InvalidRequest(
            f"the path names session {session_id!r} and the commit {body.leyline.session!r}"
        )
    return await desk.call(edits_job(desk.service, body, tenant))


@router.post("/directives")
async def directives(
    session_id: str, body: DirectivesRequest, desk: TheDesk, tenant: Tenant
) -> Receipt:
    """Apply token-space directives to the newest version: all of them, or none."""
    return await desk.call(directives_job(desk.service, session_id, body, tenant))


@router.post("/forget")
async def forget_edit(
    session_id: str, body: ForgetRequest, desk: TheDesk, tenant: Tenant
) -> Receipt:
    """Compute again what absorbed the span an earlier edit removed."""
    return await desk.call(forget_job(desk.service, session_id, body.edit_id, tenant))


@router.get("/receipts")
async def receipts(session_id: str, desk: TheDesk, tenant: Tenant) -> dict[str, Any]:
    """Every receipt of a session, oldest first."""

    def found() -> list[Receipt]:
        return list(_find(desk.service, tenant, session_id).receipts)

    key = desk.service.key(tenant, session_id)
    data = [receipt.model_dump(mode="json") for receipt in await desk.call(Job.of(found, key))]
    return {"object": "list", "data": data}


@router.get("")
async def show(
    session_id: str, desk: TheDesk, tenant: Tenant, tokens: bool = False
) -> dict[str, Any]:
    """What is held of a session; with `tokens` the newest version's token ids, too."""

    def shown() -> dict[str, Any]:
        return _shown(_find(desk.service, tenant, session_id), tokens)

    return await desk.call(Job.of(shown, desk.service.key(tenant, session_id)))


@router.delete("")
async def delete(session_id: str, desk: TheDesk, tenant: Tenant) -> dict[str, Any]:
    """Drop a session and the KV only it holds."""

    def drop() -> None:
        _find(desk.service, tenant, session_id)
        with desk.service.exclusive():
            desk.service.sessions.drop(tenant, session_id)

    await desk.call(Job.of(drop, desk.service.key(tenant, session_id)))
    return {"id": session_id, "object": "leyline.session", "deleted": True}


def _find(service: ChatService, tenant: str, session_id: str) -> EngineSession:
    session = service.sessions.find(tenant, session_id)
    if session is None or session.newest is None:
        raise UnknownSession(f"session {session_id!r} is not held here")
    return session


def _shown(session: EngineSession, tokens: bool) -> dict[str, Any]:
    newest = session.newest
    assert newest is not None
    shown = {
        "id": session.id,
        "object": "leyline.session",
        "newest": newest.number,
        "evicted": newest.evicted,
        "versions": [_version(version) for version in session.versions.values()],
        "receipts": len(session.receipts),
    }
    if not tokens:
        return shown
    ids = {"token_ids": list(newest.sequence.tokens), "pending_token_ids": list(newest.pending)}
    return {**shown, **ids}


def _version(version: Version) -> dict[str, Any]:
    sequence = version.sequence  # empty once it is evicted
    return {
        "version": version.number,
        "base_version": version.base,
        "messages": None if version.messages is None else len(version.messages),
        "tokens": len(sequence) or version.prompt_len,
        "cached_tokens": len(sequence),
        "canonical_tokens": sequence.canonical_len,
        "evicted": version.evicted,
    }
