"""The client libraries whose calls a scope takes up: how they are called, and their own types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

from leyline_agent.adapter import Request
from leyline_agent.errors import AdapterError
from leyline_agent.wrapping.streams import HeardAsyncStream, HeardStream

__all__ = ["LITELLM", "OPENAI", "OPENAI_PARSED", "Library", "request_of"]

_ABSENT = ("NotGiven", "Omit")
"""Types of the values that openai's clients take for a parameter that is not given."""


class Library(Protocol):
    """What the interception needs to know of a library."""

    def completion(self, body: Mapping[str, Any]) -> Any:
        """A chat completion as the library's own object."""
        ...

    def chunk(self, body: Mapping[str, Any]) -> Any:
        """A chunk of a stream as the library's own object."""
        ...

    def whole(self, request: Request, response: Any) -> Any:
        """The completion in whatever the library returned; None when it cannot be seen."""
        ...

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        """Let `note` have a stream's chunks as they came, where the library's leave figures out."""
        ...

    def check(self, request: Request) -> None:
        """Raise an `AdapterError` for a request that an adapter cannot answer in its place."""
        ...


class _LiteLLM:
    def completion(self, body: Mapping[str, Any]) -> Any:
        from litellm import ModelResponse

        return ModelResponse(**body)

    def chunk(self, body: Mapping[str, Any]) -> Any:
        from litellm import ModelResponseStream

        return ModelResponseStream(**body)

    def whole(self, request: Request, response: Any) -> Any:
        return response

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        """Chunks of litellm's have no room for a receipt; those of the client beneath it have."""
        beneath = getattr(response, "completion_stream", None)
        if hasattr(beneath, "__anext__"):
            response.completion_stream = HeardAsyncStream(beneath, note)
        elif hasattr(beneath, "__next__"):
            response.completion_stream = HeardStream(beneath, note)

    def check(self, request: Request) -> None:
        return None


class _OpenAI:
    def completion(self, body: Mapping[str, Any]) -> Any:
        from openai.types.chat import ChatCompletion

        return ChatCompletion.construct(**body)

    def chunk(self, body: Mapping[str, Any]) -> Any:
        from openai.types.chat import ChatCompletionChunk

        return ChatCompletionChunk.construct(**body)

    def whole(self, request: Request, response: Any) -> Any:
        """`with_raw_response` gives the response unparsed; a stream in it cannot be seen."""
        if _raw(request) == "true":
            return None if request.get("stream") else response.parse()
        return None if _raw(request) else response

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        return None

    def check(self, request: Request) -> None:
        if _raw(request):
            raise AdapterError(
                "an engine in this process has no raw HTTP response; call create without "
                "with_raw_response or with_streaming_response, or use the HTTP adapter"
            )


class _OpenAIParsed(_OpenAI):
    def check(self, request: Request) -> None:
        raise AdapterError(
            "an engine in this process does not parse replies into classes; call "
            "chat.completions.create and parse the content"
        )


LITELLM: Library = _LiteLLM()
OPENAI: Library = _OpenAI()
OPENAI_PARSED: Library = _OpenAIParsed()


def _raw(request: Request) -> str:
    headers = request.get("extra_headers") or {}
    return str(headers.get("X-Stainless-Raw-Response") or "")


def request_of(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Request | None:
    """A call's arguments by name; None when it has no messages to edit.

    `args` are without the bound object.
    """
    named = dict(zip(_parameters(function), args, strict=False))
    request = {
        key: value
        for key, value in {**named, **kwargs}.items()
        if type(value).__name__ not in _ABSENT
    }
    if request.get("messages") is None:
        return None
    request["messages"] = list(request["messages"])
    return request


@cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    names = tuple(inspect.signature(function).parameters)
    return names[1:] if names[:1] == ("self",) else names
