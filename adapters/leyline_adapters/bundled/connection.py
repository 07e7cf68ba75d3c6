"""A connection to an OpenAI-compatible server: calls that are sent again when that may help."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, closing
from typing import Any

import httpx
from tenacity import AsyncRetrying, Retrying

from leyline_adapters.bundled.http_errors import (
    StreamReader,
    check,
    policy,
    reaching,
    result,
    retries,
)

__all__ = ["Connection"]

Headers = Mapping[str, str] | None

_CONNECT_SECONDS = 5.0


class Connection:
    """Calls to one server, with JSON bodies. Thread-safe; close it.

    `headers` go with one call. Every method raises EngineUnavailable when nobody answers, or an
    answer breaks off, several times over; and what the server says as the `LeylineError` it is
    there.

    Args:
        url: the server, with or without `/v1`.
        key: the bearer token; None for none.
        timeout: seconds to wait for an answer.
        attempts: how often a call is sent before the engine counts as unavailable.
        transport: for tests; what carries the requests.
        well_formed: send U+FFFD for halves of surrogate pairs, which not every server reads.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout: float,
        attempts: int,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
        well_formed: bool = False,
    ) -> None:
        self._well_formed = well_formed
        self.url = url.rstrip("/").removesuffix("/v1")
        self.attempts = attempts
        self._options: dict[str, Any] = {
            "base_url": self.url,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
            "timeout": httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
            "verify": httpx.create_ssl_context(),  # once: it takes longer than a request
        }
        sync = transport if isinstance(transport, httpx.BaseTransport) else None
        with reaching(self.url):
            self._client = httpx.Client(transport=sync, **self._options)
        self._transport = transport if isinstance(transport, httpx.AsyncBaseTransport) else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: Headers = None
    ) -> dict[str, Any]:
        """The JSON object that a call is answered with."""
        sending = self._client.build_request(method, path, **self._content(body, headers))
        with retries():
            response = Retrying(**policy(self.attempts))(self._open, sending, stream=False)
        return result(self.url, response)

    def stream(
        self, path: str, body: dict[str, Any], headers: Headers = None
    ) -> Generator[dict[str, Any], None, None]:
        """The chunks of a streamed answer. A stream that has begun is not sent again."""
        sending = self._client.build_request("POST", path, **self._content(body, headers))
        with retries():
            response = Retrying(**policy(self.attempts))(self._open, sending, stream=True)
        reader = StreamReader(self.url)
        with closing(response), reaching(self.url, again=False):
            for line in response.iter_lines():
                if chunk := reader.read(line):
                    yield chunk
            reader.end()

    async def asend(
        self, path: str, body: dict[str, Any], headers: Headers = None
    ) -> dict[str, Any]:
        """`send` of a POST, without blocking the event loop."""
        async with self._async_client() as client:
            with retries():
                response: httpx.Response = await AsyncRetrying(**policy(self.attempts))(
                    self._aopen, client, path, self._content(body, headers), stream=False
                )
        return result(self.url, response)

    async def astream(
        self, path: str, body: dict[str, Any], headers: Headers = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """`stream`, without blocking the event loop."""
        async with self._async_client() as client:
            with retries():
                response: httpx.Response = await AsyncRetrying(**policy(self.attempts))(
                    self._aopen, client, path, self._content(body, headers), stream=True
                )
            reader = StreamReader(self.url)
            async with aclosing(response):
                with reaching(self.url, again=False):
                    async for line in response.aiter_lines():
                        if chunk := reader.read(line):
                            yield chunk
                    reader.end()

    def _open(self, sending: httpx.Request, *, stream: bool) -> httpx.Response:
        """One attempt; an answer that is an error is read and raised."""
        with reaching(self.url):
            response = self._client.send(sending, stream=stream)
            if response.is_error:
                response.read()
                response.close()
        check(self.url, response)
        return response

    async def _aopen(
        self, client: httpx.AsyncClient, path: str, content: dict[str, Any], *, stream: bool
    ) -> httpx.Response:
        with reaching(self.url):
            sending = client.build_request("POST", path, **content)
            response = await client.send(sending, stream=stream)
            if response.is_error:
                await response.aread()
                await response.aclose()
        check(self.url, response)
        return response

    def _content(self, body: dict[str, Any] | None, headers: Headers) -> dict[str, Any]:
        """A JSON body, escaped: tool output may hold halves of surrogate pairs."""
        if body is None:
            return {"headers": headers}
        text = json.dumps(body)
        if self._well_formed and "\\ud" in text:
            whole = json.dumps(body, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
            text = whole.decode("utf-16-le", "replace")
        kind = {"Content-Type": "application/json"}
        return {"content": text, "headers": {**kind, **(headers or {})}}

    def _async_client(self) -> httpx.AsyncClient:
        """A client for one call: it must not outlive the event loop it is used in."""
        return httpx.AsyncClient(transport=self._transport, **self._options)
