"""vLLM behind HTTP: a server that `leyline serve --engine vllm` started, here or elsewhere.

    adapter = VllmAdapter("http://gpu-box:8000")

The adapter keeps what a session is in tokens, and names the server's KV by handles; a server
without the connector is an ordinary vLLM to it, and the receipts say so.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing, suppress
from typing import Any

import httpx

from leyline_adapters.bundled.body import read_receipt, with_commit
from leyline_adapters.vllm.client.asking import COMPLETIONS, chat_body
from leyline_adapters.vllm.client.call import Call, commit_of
from leyline_adapters.vllm.client.connection import VllmConnection
from leyline_adapters.vllm.client.planner import Planner
from leyline_adapters.vllm.client.planning import Limits
from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError, LeylineError
from leyline_agent.receipt import Receipt
from leyline_agent.session import Session

__all__ = ["DEFAULT_URL", "VllmAdapter"]

DEFAULT_URL = "http://127.0.0.1:8000"
_CHAT = "/v1/chat/completions"
_PLANNERS = 32  # threads that plan for asynchronous callers; each waits for the server
_DEFAULTS = Limits()


class VllmAdapter:
    """Takes the calls of a wrapped loop over and sends them to a vLLM server.

    Thread-safe; close it, or use it as a context manager.

    Args:
        base_url: the server, with or without `/v1`; None for $LEYLINE_VLLM_URL, else port 8000 of
            this machine.
        api_key: the server's key (`--api-key`); None for $VLLM_API_KEY.
        tenant: whose canonical KV may be shared: its digest is vLLM's `cache_salt`. None for the
            tenant that the key makes; without a key, the server's common one.
        model: the name to ask for; None for whatever is served, whatever the request says.
        limits: what is worth a request of its own.
        timeout: seconds to wait for an answer.
        attempts: how often a call is sent before the engine counts as unavailable.
        transport: for tests; what carries the requests.
    """

    name = "vllm"
    capabilities = Capabilities(
        modes=frozenset(Mode), repair="boundary", edit_ahead=True, directives=True, receipts=True
    )

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        tenant: str | None = None,
        model: str | None = None,
        limits: Limits = _DEFAULTS,
        timeout: float = 600.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | httpx.AsyncBaseTransport | None = None,
    ) -> None:
        if base_url == "":
            raise AdapterError(
                "base_url is empty; pass the server's address, or None for $LEYLINE_VLLM_URL"
            )
        given = base_url or os.environ.get("LEYLINE_VLLM_URL") or DEFAULT_URL
        key = api_key or os.environ.get("VLLM_API_KEY")
        self.model = model
        self._connection = VllmConnection(
            given,
            key,
            timeout=timeout,
            attempts=attempts,
            transport=transport,
            well_formed=True,
        )
        self.url = self._connection.url
        salt = _salt(tenant if tenant is not None else key)
        self._planner = Planner(self._connection, salt, model, limits)
        self._threads: ThreadPoolExecutor | None = None

    def close(self) -> None:
        """Close the connections; the server gives up the sessions' KV when it needs the room."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        self._connection.close()

    def __enter__(self) -> VllmAdapter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request with the commit in its extra body, for `complete` and `stream`."""
        return with_commit(request, commit)

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt of a response or of a stream's last chunk."""
        return read_receipt(response)

    def complete(self, request: Request) -> dict[str, Any]:
        """A chat completion.

        Raises:
            EngineUnavailable: nobody answers, or the answer breaks off, several times over.
            ContextOverflow: the prompt is too long for the model.
            StaleSession: another commit has the version's number.
            AdapterError: what else the server says.
        """
        call = self._call(request)
        with call:
            answer = self._connection.send("POST", _CHAT, call.body(), call.headers)
            return call.finish(answer, self._word(call, answer))

    def stream(self, request: Request) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed completion; close it to abandon the turn.

        A stream that has begun is not sent again. Raises what `complete` does.
        """
        call = self._call(request)
        with call:
            body = call.body(stream=True)
            with closing(self._connection.stream(_CHAT, body, call.headers)) as chunks:
                for chunk in chunks:
                    if shown := call.read(chunk):
                        yield shown
            yield from call.end(self._word(call))

    async def acomplete(self, request: Request) -> dict[str, Any]:
        """`complete`, without blocking the event loop."""
        call = await self._acall(request)
        with call:
            answer = await self._connection.asend(_CHAT, call.body(), call.headers)
            return call.finish(answer, await self._aword(call, answer))

    async def astream(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        """`stream`, without blocking the event loop."""
        call = await self._acall(request)
        with call:
            body = call.body(stream=True)
            async with aclosing(self._connection.astream(_CHAT, body, call.headers)) as chunks:
                async for chunk in chunks:
                    if shown := call.read(chunk):
                        yield shown
            for last in call.end(await self._aword(call)):
                yield last

    def apply(self, session: str, base_version: int, directives: Sequence[Directive]) -> Receipt:
        """Apply token-space directives to a session, atomically, in original coordinates."""
        return self._planner.directives(session, base_version, directives)

    def edit_ahead(self, request: Request, commit: Commit) -> Receipt:
        """Apply a commit's edits now, while a tool runs; the next request finds them done."""
        return self._planner.ahead(chat_body(request, self.model), commit)

    def drop(self, session: Session | str) -> bool:
        """Forget a session, or that of an id, and let the server give up its KV.

        Returns:
            Whether there was one.

        Raises:
            TypeError: it is neither.
        """
        name = session.id if isinstance(session, Session) else session
        if not isinstance(name, str):
            raise TypeError(f"drop takes a Session or its id, not {type(name).__name__}")
        return self._planner.drop(name)

    def _call(self, request: Request) -> Call:
        return self._planner.call(chat_body(request, self.model), commit_of(request))

    def _word(self, call: Call, answer: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The connector's word on a turn whose answer came without; None where there is none."""
        body = call.settling_body(answer)
        if body is None:
            return None
        with suppress(LeylineError):  # the reply is there: it is not lost for want of a receipt
            return self._connection.send("POST", COMPLETIONS, body, call.headers)
        return None

    async def _aword(
        self, call: Call, answer: dict[str, Any] | None = None
    ) -> dict[str, Any] | None:
        body = call.settling_body(answer)
        if body is None:
            return None
        with suppress(LeylineError):
            return await self._connection.asend(COMPLETIONS, body, call.headers)
        return None

    async def _acall(self, request: Request) -> Call:
        """`_call` in a thread; where its caller is gone, nobody needs what it held."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_PLANNERS, "leyline-vllm")
        planning = self._threads.submit(self._call, request)
        try:
            return await asyncio.wrap_future(planning)
        except asyncio.CancelledError:
            planning.add_done_callback(_abandon)
            raise


def _abandon(planning: Future[Call]) -> None:
    if not planning.cancelled() and planning.exception() is None:
        planning.result().give_up()


def _salt(tenant: str | None) -> str:
    """A tenant's cache salt: as hard to guess as the tenant's name or key, and no key itself."""
    return hashlib.sha256(f"leyline:{tenant}".encode()).hexdigest() if tenant else ""
