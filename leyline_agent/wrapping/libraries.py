"""The client libraries whose calls a scope takes up: how they are called, and their own types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from leyline_agent.adapter import Request
from leyline_agent.errors import AdapterError
from leyline_agent.wrapping.streams import Assembling, Assembly, heard

__all__ = [
    "LITELLM",
    "OPENAI",
    "OPENAI_PARSED",
    "Library",
    "Taken",
    "Translator",
    "raw_header",
    "request_of",
]

_ABSENT = ("NotGiven", "Omit")
"""Types of the values that clients take for a parameter that is not given."""


@dataclass(frozen=True)
class Taken:
    """A call of a library as a session takes it.

    Attributes:
        request: the call's arguments by name, messages and tools in chat's form.
        arguments: makes the arguments to call with of what the session made of the request.
    """

    request: Request
    arguments: Callable[[Request], Request]


class Translator(Protocol):
    """Makes the library's pieces of a chat completion's chunks."""

    def add(self, chunk: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The pieces that a chunk gives."""
        ...

    def end(self) -> Iterator[Mapping[str, Any]]:
        """The last pieces."""
        ...


class Library(Protocol):
    """What the interception needs to know of a library.

    Attributes:
        name: its name.
    """

    name: str

    def taken(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Taken | None:
        """A call as a session takes it; None when it has no messages to edit."""
        ...

    def asked(self, request: Request) -> Request:
        """The chat request for an adapter that answers in the library's place.

        Raises:
            AdapterError: it cannot.
        """
        ...

    def completion(self, body: Mapping[str, Any]) -> Any:
        """A chat completion as the library's own object."""
        ...

    def translator(self) -> Translator | None:
        """What makes the library's pieces of chunks; None where they are its pieces."""
        ...

    def chunk(self, body: Mapping[str, Any]) -> Any:
        """A piece of a stream as the library's own object."""
        ...

    def streams(self, request: Request) -> bool:
        """Whether the answer is a stream that can be seen."""
        ...

    def assembly(self) -> Assembling:
        """Puts a stream of the library's pieces together."""
        ...

    def cleaned(self, delivery: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """What `delivery` does to a completion's chunks, done to pieces; some are DROPPED."""
        ...

    def given(self, response: Any, whole: Any, told: Any) -> Any:
        """The response as the caller gets it, where its completion `whole` became `told`."""
        ...

    def whole(self, request: Request, response: Any) -> Any:
        """The completion in whatever the library returned; None when it cannot be seen."""
        ...

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        """Let `note` have a stream's chunks as they came, where the library's leave figures out."""
        ...


class _Chat:
    """A library that speaks chat."""

    def taken(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Taken | None:
        request = request_of(function, args, kwargs)
        return None if request is None else Taken(request, _as_it_is)

    def asked(self, request: Request) -> Request:
        return request

    def translator(self) -> Translator | None:
        return None

    def streams(self, request: Request) -> bool:
        return bool(request.get("stream"))

    def assembly(self) -> Assembling:
        return Assembly()

    def cleaned(self, delivery: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return delivery

    def given(self, response: Any, whole: Any, told: Any) -> Any:
        """What is in a raw response is changed in its place."""
        return told if whole is response else response

    def whole(self, request: Request, response: Any) -> Any:
        return response

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        return None


class _LiteLLM(_Chat):
    name = "litellm"

    def taken(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Taken | None:
        """What Anthropic takes in the body has a parameter of its own there."""
        request = request_of(function, args, kwargs)
        if request is None:
            return None
        own = request.get("extra_body") or {}

        def arguments(sent: Request) -> Request:
            body = sent.get("extra_body") or {}
            if "context_management" not in body or "context_management" in own:
                return sent
            rest = {key: value for key, value in body.items() if key != "context_management"}
            asked = {**sent, "context_management": body["context_management"]}
            return {**asked, "extra_body": rest or None}

        return Taken(request, arguments)

    def completion(self, body: Mapping[str, Any]) -> Any:
        from litellm import ModelResponse

        return ModelResponse(**body)

    def chunk(self, body: Mapping[str, Any]) -> Any:
        from litellm import ModelResponseStream

        return ModelResponseStream(**body)

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        """Chunks of litellm's have no room for a receipt; those of the client beneath it have."""
        beneath = getattr(response, "completion_stream", None)
        if beneath is not None:
            response.completion_stream = heard(beneath, note)


class _OpenAI(_Chat):
    name = "openai"

    def asked(self, request: Request) -> Request:
        if raw_header(request):
            raise AdapterError(
                "an engine in this process has no raw HTTP response; call create without "
                "with_raw_response or with_streaming_response, or use the HTTP adapter"
            )
        return request

    def completion(self, body: Mapping[str, Any]) -> Any:
        from openai.types.chat import ChatCompletion

        return ChatCompletion.construct(**body)

    def chunk(self, body: Mapping[str, Any]) -> Any:
        from openai.types.chat import ChatCompletionChunk

        return ChatCompletionChunk.construct(**body)

    def streams(self, request: Request) -> bool:
        """A stream in a raw response cannot be seen."""
        return super().streams(request) and not raw_header(request)

    def whole(self, request: Request, response: Any) -> Any:
        """`with_raw_response` gives the response unparsed, `with_streaming_response` unread."""
        if not raw_header(request):
            return response
        seen = raw_header(request) == "true" and not request.get("stream")
        return response.parse() if seen else None


class _OpenAIParsed(_OpenAI):
    def asked(self, request: Request) -> Request:
        raise AdapterError(
            "an engine in this process does not parse replies into classes; call "
            "chat.completions.create and parse the content"
        )


LITELLM: Library = _LiteLLM()
OPENAI: Library = _OpenAI()
OPENAI_PARSED: Library = _OpenAIParsed()


def raw_header(request: Request) -> str:
    """What a call that asks for the raw response says it wants; "" for one that does not."""
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


def _as_it_is(request: Request) -> Request:
    return request
