"""The connection to a vLLM server, whose refusals are told with what to do about them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from leyline_adapters.bundled.connection import Connection
from leyline_agent.errors import AdapterError, EngineUnavailable

__all__ = ["NO_TOKENS", "VllmConnection"]

NO_TOKENS = (
    "no POST /tokenize there; is this vLLM? For any other OpenAI-compatible server use "
    "adapter='openai'"
)
_ABSENT = ("answered 404", "answered 405", "answered 501")
_PARSER = "--enable-auto-tool-choice"  # in vLLM's words on tools that it cannot read calls of
_TOOLS = (
    "; start it with leyline serve --engine vllm ... -- --enable-auto-tool-choice "
    "--tool-call-parser NAME (hermes for Qwen; docs/deploy-vllm.md), or pass no tools"
)

Headers = Mapping[str, str] | None


class VllmConnection(Connection):
    """A `Connection` whose errors are about vLLM."""

    def send(
        self, method: str, path: str, body: dict[str, Any] | None = None, headers: Headers = None
    ) -> dict[str, Any]:
        """The JSON object that a call is answered with."""
        with _explained(path):
            return super().send(method, path, body, headers)

    def stream(
        self, path: str, body: dict[str, Any], headers: Headers = None
    ) -> Generator[dict[str, Any], None, None]:
        """The chunks of a streamed answer. A stream that has begun is not sent again."""
        with _explained(path):
            yield from super().stream(path, body, headers)

    async def asend(
        self, path: str, body: dict[str, Any], headers: Headers = None
    ) -> dict[str, Any]:
        """`send` of a POST, without blocking the event loop."""
        with _explained(path):
            return await super().asend(path, body, headers)

    async def astream(
        self, path: str, body: dict[str, Any], headers: Headers = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """`stream`, without blocking the event loop."""
        with _explained(path):
            async with aclosing(super().astream(path, body, headers)) as chunks:
                async for chunk in chunks:
                    yield chunk


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except EngineUnavailable as error:
        told = str(error).replace("`leyline serve`", "`leyline serve --engine vllm`")
        raise EngineUnavailable(told) from error.__cause__
    except AdapterError as error:
        told = str(error)
        absent = any(words in told for words in _ABSENT) and "does not exist" not in told
        if path == "/tokenize" and absent:
            url = told.partition(" answered ")[0]
            raise type(error)(f"{url}: {NO_TOKENS}") from error.__cause__
        if _PARSER in told:
            raise type(error)(told + _TOOLS) from error.__cause__
        raise
