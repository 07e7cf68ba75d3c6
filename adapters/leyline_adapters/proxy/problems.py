"""Problems of the proxy's own, in the form that clients of each API read."""

from __future__ import annotations

import json
from typing import Literal

__all__ = ["Api", "problem"]

Api = Literal["openai", "anthropic"]

_ANTHROPIC = {400: "invalid_request_error", 404: "not_found_error", 504: "timeout_error"}


def problem(api: Api, status: int, code: str, message: str) -> bytes:
    """The body of an error."""
    if api == "anthropic":
        kind = _ANTHROPIC.get(status, "api_error")
        told: dict[str, object] = {"type": "error", "error": {"type": kind, "message": message}}
    else:
        kind = "invalid_request_error" if status < 500 else "server_error"
        told = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return json.dumps(told).encode()
