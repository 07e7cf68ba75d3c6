"""Problems: every error becomes an OpenAI error body with a status that fits."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from leyline_agent.errors import (
    ContextOverflow,
    EditError,
    InvalidRequest,
    LeylineError,
    OutOfSlots,
    StaleSession,
    UnknownSession,
)
from leyline_agent.serving.explain import describe, place_of
from leyline_agent.serving.render import well_formed
from leyline_agent.serving.wire import error_code

__all__ = ["add_handlers", "error_body", "status_of"]

_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (EditError, 400),
    (InvalidRequest, 400),
    (ContextOverflow, 400),
    (UnknownSession, 404),
    (StaleSession, 409),
    (OutOfSlots, 503),
)
_RETRY_AFTER = "1"  # seconds


def status_of(error: Exception) -> int:
    """The HTTP status of an error; 500 for what no client can mend."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_body(error: Exception) -> dict[str, Any]:
    """The OpenAI error body. Of an error nobody foresaw only the log tells more."""
    if not isinstance(error, LeylineError):
        return _body(500, "the server failed; its log says more", "internal_error")
    return _body(status_of(error), str(error), error_code(error))


def add_handlers(app: FastAPI) -> None:
    """Answer every error of an application this way."""
    app.add_exception_handler(LeylineError, _on_error)
    app.add_exception_handler(Exception, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    status = status_of(error)
    headers = {"Retry-After": _RETRY_AFTER} if status == 503 else None
    return JSONResponse(error_body(error), status, headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # nobody parsed it
        message = "the body is not read as JSON; send it with Content-Type: application/json"
        return JSONResponse(_body(400, message, "invalid_body"), 400)
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        at = first["loc"][-1]
        message = f"the body is not JSON: {first['ctx']['error']} at character {at}"
        return JSONResponse(_body(400, message, "invalid_body"), 400)
    message, param = describe(problems, under=1), place_of(first["loc"][1:])
    return JSONResponse(_body(400, message, "invalid_body", param or None), 400)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail = error.detail
    if status == 404 and detail == "Not Found":
        detail = f"there is no {request.url.path} here"
    elif status == 405:
        detail = f"{request.url.path} does not take {request.method}"
    if status == 400:  # as FastAPI says it of what no parser takes
        message = "the body is no JSON that can be read; send an object in UTF-8"
        return JSONResponse(_body(400, message, "invalid_body"), 400)
    if detail.startswith("the model "):
        return JSONResponse(_body(status, detail, "model_not_found", "model"), status)
    return JSONResponse(_body(status, detail, "not_found"), status, error.headers)


def _body(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": well_formed(message), "type": kind, "param": param, "code": code}}
