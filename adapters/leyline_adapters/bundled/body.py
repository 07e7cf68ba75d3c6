"""What both adapters to the bundled engine share: its wire fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.wire import ChatRequest

__all__ = [
    "CAPABILITIES",
    "as_body",
    "directives_body",
    "parse_receipt",
    "read_receipt",
    "with_commit",
]

_UNTOLD = (
    "the answer has no receipt, so it is not known what became of the edits: the server is no "
    "Leyline server, or something on the way drops the field"
)

CAPABILITIES = Capabilities(
    modes=frozenset(Mode), repair="full", edit_ahead=True, directives=True, receipts=True
)


def with_commit(request: Request, commit: Commit) -> Request:
    """The request with the `leyline` field in its extra body."""
    extra = dict(request.get("extra_body") or {})
    extra["leyline"] = commit.model_dump(mode="json")
    return {**request, "extra_body": extra}


def as_body(request: Request, *, stream: bool) -> dict[str, Any]:
    """The JSON body of a request: what is OpenAI's, with the extra body merged in.

    A client library's own arguments (keys, addresses, callbacks) stay here.
    """
    body = {
        key: value
        for key, value in request.items()
        if key in ChatRequest.model_fields and value is not None
    }
    return {**body, **(request.get("extra_body") or {}), "stream": stream}


def directives_body(base_version: int, directives: Sequence[Directive]) -> dict[str, Any]:
    """The JSON body that applies directives."""
    wire = [
        {
            "start": directive.start,
            "end": directive.end,
            "replacement": list(directive.replacement),
            "mode": directive.mode.value,
        }
        for directive in directives
    ]
    return {"base_version": base_version, "directives": wire}


def read_receipt(response: Mapping[str, Any]) -> Receipt | None:
    """The receipt of a response or last chunk; made of `usage` where there is none, and says so.

    Raises:
        AdapterError: it is no receipt.
    """
    found = response.get("leyline")
    if found is not None:
        return parse_receipt(found)
    usage = response.get("usage")
    return (
        Receipt.from_usage(dict(usage), reason=Reason.NO_RECEIPT, detail=_UNTOLD) if usage else None
    )


def parse_receipt(found: Any) -> Receipt:
    """A receipt as it came over the wire. Raises AdapterError when it is none."""
    try:
        return Receipt.model_validate(found)
    except ValidationError as error:
        raise AdapterError(f"not a receipt: {error}") from error
