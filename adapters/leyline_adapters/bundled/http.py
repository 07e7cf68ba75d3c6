"""The bundled engine behind HTTP: a `leyline serve` here or elsewhere.

    adapter = HttpAdapter("http://gpu-box:8000")

Every commit names its version, so a call that failed on the way is simply sent again: the server
acts once.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any
from urllib.parse import quote

import httpx

from leyline_adapters.bundled.body import (
    CAPABILITIES,
    as_body,
    directives_body,
    parse_receipt,
    read_receipt,
    with_commit,
)
from leyline_adapters.bundled.connection import Connection
from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Directive
from leyline_agent.receipt import Receipt

__all__ = ["DEFAULT_URL", "HttpAdapter"]

DEFAULT_URL = "http://127.0.0.1:8000"
_CHAT = "/v1/chat/completions"


class HttpAdapter:
    """Takes the calls of a wrapped loop over and sends them to a Leyline server.

    With `prepare` and `receipt` alone it serves a client of the user's own that is pointed there.
    Thread-safe; close it, or use it as a context manager.

    Args:
        base_url: the server, with or without `/v1`; None for $LEYLINE_BASE_URL, else the address
            `leyline serve` has by default.
        api_key: names the tenant; None for $LEYLINE_API_KEY, else the server's common tenant.
        model: the name to ask for; None for whatever is served, whatever the request says.
        timeout: seconds to wait for an answer.
        attempts: how often a call is sent before the engine counts as unavailable.
        transport: for tests; what carries the requests.
    """

    name = "http"

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 600.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
    ) -> None:
        given = base_url or os.environ.get("LEYLINE_BASE_URL") or DEFAULT_URL
        key = api_key or os.environ.get("LEYLINE_API_KEY")
        self.model = model
        self._connection = Connection(
            given, key, timeout=timeout, attempts=attempts, transport=transport
        )
        self.url = self._connection.url

    @property
    def capabilities(self) -> Capabilities:
        """Every mode; a server that cannot splice its model strengthens them and says why."""
        return CAPABILITIES

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def __enter__(self) -> HttpAdapter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request with the `leyline` field in its extra body."""
        return with_commit(request, commit)

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt of a response or of a stream's last chunk."""
        return read_receipt(response)

    def complete(self, request: Request) -> dict[str, Any]:
        """A chat completion.

        Raises:
            EngineUnavailable: nobody answers, or the answer breaks off, several times over.
            LeylineError: what the server says, as the error it is there.
        """
        return self._connection.send("POST", _CHAT, self._body(request, stream=False))

    def stream(self, request: Request) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed completion; close it to abandon the turn.

        A stream that has begun is not sent again. Raises what `complete` does.
        """
        with closing(self._connection.stream(_CHAT, self._body(request, stream=True))) as chunks:
            yield from chunks

    async def acomplete(self, request: Request) -> dict[str, Any]:
        """`complete`, without blocking the event loop."""
        return await self._connection.asend(_CHAT, self._body(request, stream=False))

    async def astream(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        """`stream`, without blocking the event loop."""
        body = self._body(request, stream=True)
        async with aclosing(self._connection.astream(_CHAT, body)) as chunks:
            async for chunk in chunks:
                yield chunk

    def apply(self, session: str, base_version: int, directives: Sequence[Directive]) -> Receipt:
        """Apply token-space directives to a session, atomically, in original coordinates."""
        body = directives_body(base_version, directives)
        return self._receipt(session, "directives", body)

    def edit_ahead(self, request: Request, commit: Commit) -> Receipt:
        """Apply a commit's edits now, while a tool runs; the next request finds them done."""
        body = self._body(with_commit(request, commit), stream=False)
        return self._receipt(commit.session, "edits", body)

    def queue(self) -> int:
        """Requests that run or wait at the server."""
        told = self._connection.send("GET", "/health")
        return int(told.get("running") or 0) + int(told.get("waiting") or 0)

    def forget(self, session: str, edit_id: str) -> Receipt:
        """Compute again what absorbed the span an earlier edit removed."""
        return self._receipt(session, "forget", {"edit_id": edit_id})

    def receipts(self, session: str) -> list[Receipt]:
        """Every receipt the server has of a session, oldest first."""
        found = self._connection.send("GET", f"{_path(session)}/receipts")
        return [parse_receipt(item) for item in found.get("data") or ()]

    def _body(self, request: Request, *, stream: bool) -> dict[str, Any]:
        body = as_body(request, stream=stream)
        body.pop("model", None)
        return {**body, "model": self.model} if self.model else body

    def _receipt(self, session: str, action: str, body: dict[str, Any]) -> Receipt:
        return parse_receipt(self._connection.send("POST", f"{_path(session)}/{action}", body))


def _path(session: str) -> str:
    return f"/v1/leyline/sessions/{quote(session, safe='')}"
