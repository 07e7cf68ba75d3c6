"""OpenAI's endpoints that generate: chat completions and text completions."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from leyline_agent.errors import LeylineError
from leyline_agent.serving.completions import completion_job
from leyline_agent.serving.scheduler import Job
from leyline_agent.serving.server.desk import Desk, TheDesk
from leyline_agent.serving.server.problems import error_body
from leyline_agent.serving.server.tenant import Tenant
from leyline_agent.serving.thread import AsyncTask
from leyline_agent.serving.wire import CheckedChatRequest, CompletionRequest, SamplingRequest

__all__ = ["router"]

logger = logging.getLogger("leyline.serving")

router = APIRouter(prefix="/v1")

_CLIENT_CLOSED_REQUEST = 499  # nobody reads it
_LONGEST_HEADER = 1000


@router.post("/chat/completions")
async def chat_completions(
    body: CheckedChatRequest, request: Request, desk: TheDesk, tenant: Tenant
) -> Response:
    """A chat completion, at once or streamed."""
    job = desk.service.job(body, tenant, stream=body.stream)
    return await _answer(desk, body, request, job)


@router.post("/completions")
async def completions(
    body: CompletionRequest, request: Request, desk: TheDesk, tenant: Tenant
) -> Response:
    """A text completion, at once or streamed."""
    job = completion_job(desk.service, body, tenant, stream=body.stream)
    return await _answer(desk, body, request, job)


async def _answer(
    desk: Desk,
    body: SamplingRequest,
    request: Request,
    job: Job[dict[str, Any] | None],
) -> Response:
    check_model(desk, body.model)
    work = desk.work(request, job)
    try:
        bodies = aiter(work)
        # A prompt that cannot be served says so by its status, streamed or not.
        first = await (anext(bodies, None) if body.stream else work.result())
    except BaseException:
        work.cancel()
        raise
    if first is None:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    headers = _told(body)
    if not body.stream:
        return JSONResponse(first, headers=headers)
    headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(work, first, bodies), 200, headers, "text/event-stream")


def _told(body: SamplingRequest) -> dict[str, str]:
    """The header that names the parameters nobody acts on."""
    names = [name for name in body.ignored if name.isascii() and name.isidentifier()]
    return {"Leyline-Ignored": ", ".join(names)[:_LONGEST_HEADER]} if names else {}


def check_model(desk: Desk, name: str) -> None:
    """Accept the served model's name, or none; 404 for another."""
    served = desk.service.name
    if name not in ("", served):
        raise HTTPException(404, f"the model {name!r} is not served here; {served!r} is")


async def _events(
    work: AsyncTask[Any], first: dict[str, Any], rest: AsyncIterator[dict[str, Any]]
) -> AsyncIterator[str]:
    """Server-sent events; an error on the way is the last one."""
    try:
        yield _event(first)
        async for body in rest:
            yield _event(body)
    except Exception as error:  # the status is sent already
        if not isinstance(error, LeylineError):
            logger.exception("a stream broke off")
        yield _event(error_body(error))
    finally:
        work.cancel()
    yield "data: [DONE]\n\n"


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
