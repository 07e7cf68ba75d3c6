"""Upstream: where requests go on to, and what may go wrong on the way.

aiohttp makes the calls: at fifty open connections httpx, whose pool looks at every idle connection
for every request, takes two to four milliseconds of a core a request here, aiohttp under one.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from leyline_agent.errors import LeylineError

__all__ = ["MARKER", "Answer", "Broken", "Headers", "Upstream", "forwarded"]

Headers = list[tuple[bytes, bytes]]
"""Raw header lines, names in lower case."""

MARKER = b"leyline-proxy"
"""The header that names each proxy a request went through, a line for each."""

_CONNECT_SECONDS = 10.0
_DETECT_SECONDS = 3.0
# uvicorn, which vLLM and `leyline serve` run on, closes an idle connection after 5 s; where a call
# meets that, it fails. Making a new one is dear only with TLS, and providers keep those longer.
_IDLE_SECONDS = {"http": 4.0, "https": 60.0}

# Of one connection, not of the message (RFC 9110, 7.6.1), or made anew for each.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class Broken(LeylineError):
    """The upstream gave no whole answer.

    Attributes:
        status: what a client is answered where nothing was sent yet.
        kind: one word for it, as errors have it in `code`.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


def forwarded(headers: Iterable[tuple[bytes, bytes]], *, without: Iterable[bytes] = ()) -> Headers:
    """The header lines that go on to the other side, in their order."""
    left_out = _HOP_BY_HOP.union(without)
    return [
        (n, v) for n, v in ((name.lower(), value) for name, value in headers) if n not in left_out
    ]


class Answer:
    """An upstream's answer, its body not read yet."""

    def __init__(self, response: aiohttp.ClientResponse, upstream: Upstream) -> None:
        self._response = response
        self._upstream = upstream

    @property
    def status(self) -> int:
        """The status code."""
        return self._response.status

    @property
    def headers(self) -> Headers:
        """The header lines that go on to the client."""
        return forwarded(self._response.raw_headers)

    @property
    def length(self) -> Headers:
        """The line that says how long the body is, where the upstream has sent one."""
        found = self._response.headers.get("content-length")
        return [] if found is None or self._chunked else [(b"content-length", found.encode())]

    @property
    def streams(self) -> bool:
        """Whether the body is server-sent events."""
        return self._response.content_type == "text/event-stream"

    @property
    def readable(self) -> bool:
        """Whether the body is sent as it is, not compressed."""
        return self._response.headers.get("content-encoding", "identity") == "identity"

    async def read(self) -> bytes:
        """The whole body. Raises Broken."""
        with self._upstream.reaching():
            return await self._response.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, as the upstream sent them. Raises Broken."""
        with self._upstream.reaching():
            pending = b""
            async for data, ends in self._response.content.iter_chunks():
                pending += data
                if pending and (ends or not self._chunked):
                    yield pending
                    pending = b""
            if pending:
                yield pending

    @property
    def _chunked(self) -> bool:
        return "transfer-encoding" in self._response.headers


class Upstream:
    """A provider or a server. Use it as an asynchronous context manager.

    Proxies named by HTTP_PROXY, HTTPS_PROXY and NO_PROXY are gone through.

    Args:
        url: the base URL as clients of its API have it, with or without `/v1`.
        timeout: seconds to wait for an answer to begin, and then for each piece of it.

    Attributes:
        host, port: of its address.
        marker: names this proxy in the requests that go there.

    Raises:
        LeylineError: the address is none.
    """

    def __init__(self, url: str, timeout: float = 600.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LeylineError(
                f"--upstream {url!r} is no address of a server; name it whole, as in "
                "https://api.openai.com/v1"
            )
        if parts.query or parts.fragment:
            raise LeylineError(f"--upstream {url!r} has a query; name the base URL only")
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self.port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        self.marker = uuid.uuid4().hex.encode()
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._base = parts.path.rstrip("/")
        self._timeout = timeout
        self._idle = _IDLE_SECONDS[parts.scheme]
        self._proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Upstream:
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=self._idle),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trust_env=False,  # It would look for proxies and passwords in files on every call.
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._timeout
            ),
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._client is not None:
            await self._client.close()

    def address(self, path: str, query: str = "") -> str:
        """Where a path of the proxy's goes: `/v1/...` below the base URL, others beside its `/v1`.

        Args:
            path: with its percent signs, as it came.
            query: likewise; without the question mark.
        """
        if path.startswith("/v1/") or path == "/v1":
            base, rest = self._base or "/v1", path[3:]
        else:
            base, rest = self._base.removesuffix("/v1"), path
        return f"{self._origin}{base}{rest}" + (f"?{query}" if query else "")

    @asynccontextmanager
    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterator[bytes]
    ) -> AsyncIterator[Answer]:
        """Send a request; leaving the block ends it, whatever was read of the answer.

        Raises:
            Broken: no answer came, or it broke off while it was read.
        """
        assert self._client is not None, "the upstream is used inside its `async with`"
        marked = [*headers, (MARKER, self.marker)]
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in marked]
        with self.reaching():
            response = await self._client.request(
                method,
                URL(url, encoded=True),
                headers=lines,
                data=body or None,
                allow_redirects=False,
                proxy=self._proxy,
            )
        try:
            yield Answer(response, self)
        finally:
            response.close()  # of no effect on a connection whose answer was read to its end

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Around what talks to it: the client's errors as `Broken`."""
        try:
            yield
        except aiohttp.ConnectionTimeoutError as error:
            raise Broken(
                504,
                "upstream_timeout",
                f"{self.url} could not be connected to within {_CONNECT_SECONDS:g} s",
            ) from error
        except TimeoutError as error:
            raise Broken(
                504,
                "upstream_timeout",
                f"{self.url} did not answer within {self._timeout:g} s; the call was given up. "
                "`leyline proxy --timeout` waits longer",
            ) from error
        except aiohttp.ClientConnectorError as error:
            raise Broken(
                502, "upstream_unreachable", f"{self.url} cannot be reached: {error}"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            told = str(error) or type(error).__name__
            raise Broken(
                502, "upstream_broken", f"the answer from {self.url} broke off: {told}"
            ) from error

    async def is_leyline(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> bool | None:
        """Whether a `leyline serve` listens there; None when it does not tell.

        Args:
            headers: a client's; its key is used.

        Raises:
            Broken: nobody listens.
        """
        lines = [(n, v) for n, v in headers if n not in (b"accept-encoding", b"content-type")]
        try:
            async with asyncio.timeout(_DETECT_SECONDS):
                async with self.send("GET", self.address("/v1/models"), lines, b"") as answer:
                    if answer.status in (401, 403, 429) or answer.status >= 500:
                        return None
                    found = json.loads(await answer.read()) if answer.status == 200 else None
        except TimeoutError:
            return None
        except ValueError:
            return False
        models = found.get("data") if isinstance(found, dict) else None
        return isinstance(models, list) and any(
            isinstance(model, dict) and isinstance(model.get("leyline"), dict) for model in models
        )
