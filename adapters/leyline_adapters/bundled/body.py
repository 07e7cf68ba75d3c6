"""What both adapters to the bundled engine share: its wire fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Mode
from leyline_agent.receipt import Receipt

__all__ = ["CAPABILITIES", "as_body", "read_receipt", "with_commit"]

CAPABILITIES = Capabilities(
    modes=frozenset(Mode), repair="full", edit_ahead=True, directives=True, receipts=True
)


def with_commit(request: Request, commit: Commit) -> Request:
    """The request with the `leyline` field in its extra body."""
    extra = dict(request.get("extra_body") or {})
    extra["leyline"] = commit.model_dump(mode="json")
    return {**request, "extra_body": extra}


def as_body(request: Request, *, stream: bool) -> dict[str, Any]:
    """The JSON body of a request: its extra body merged in, as OpenAI clients do."""
    body = {key: value for key, value in request.items() if value is not None}
    extra = body.pop("extra_body", None) or {}
    for key in ("extra_headers", "extra_query", "timeout"):
        body.pop(key, None)
    return {**body, **extra, "stream": stream}


def read_receipt(response: Mapping[str, Any]) -> Receipt | None:
    """The receipt of a response or last chunk; made of `usage` where the server is another."""
    found = response.get("leyline")
    if found is not None:
        return Receipt.model_validate(found)
    usage = response.get("usage")
    return Receipt.from_usage(dict(usage)) if usage else None
