"""Anthropic's Python client: its calls as turns of a session.

`messages.create`, `messages.parse` and `messages.stream`, those of `beta` too, of sync and async
clients; a request is converted to chat and what the session made of it is converted back.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

from leyline_adapters.anthropic.cleaning import Cleaning
from leyline_adapters.anthropic.messages import to_chat
from leyline_adapters.anthropic.replies import Assembly, EventStream, to_completion, to_message
from leyline_agent.adapter import Request
from leyline_agent.errors import AdapterError, LeylineError
from leyline_agent.message import Message
from leyline_agent.recall.tool import UNANSWERED
from leyline_agent.wrapping.exchange import Exchange
from leyline_agent.wrapping.intercept import (
    failing,
    intercepted,
    intercepted_async,
    streamed,
    streamed_async,
    taken_over_stream,
    taken_over_stream_async,
)
from leyline_agent.wrapping.libraries import Taken, raw_header, request_of
from leyline_agent.wrapping.scope import active, entered

__all__ = ["patch"]

_OURS = ("messages", "tools", "system")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def patch(module: ModuleType) -> None:
    """Patch `Messages` and `AsyncMessages` in a module of the client's resources."""
    prefix = "Beta" if ".beta." in module.__name__ else ""
    whole, parsed = _Anthropic(prefix), _Parsed(prefix)
    for kind, wrap, manager in (
        (module.Messages, intercepted, _Manager),
        (module.AsyncMessages, intercepted_async, _AsyncManager),
    ):
        kind.create = wrap(kind.create, whole, method=True)
        if hasattr(kind, "parse"):
            kind.parse = wrap(kind.parse, parsed, method=True)
        if hasattr(kind, "stream"):
            kind.stream = _managed(kind.stream, manager, whole)


class _Anthropic:
    """What the interception needs to know of the client.

    Args:
        prefix: of the names of its types.
    """

    name = "anthropic"

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def taken(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Taken | None:
        """A call as chat; one that cannot be read says so when it is taken up."""
        request = request_of(function, args, kwargs)
        if request is None:
            return None
        rest = {key: value for key, value in request.items() if key not in _OURS}
        given = {key: _listed(request[key]) for key in _OURS if key in request}
        try:
            conversation = to_chat(given)
        except LeylineError as error:
            return Taken({**rest, "messages": _Unreadable(error)}, lambda _: request)

        def arguments(sent: Request) -> Request:
            own = conversation.restored(sent["messages"], sent.get("tools"))
            return {**{k: v for k, v in sent.items() if k not in _OURS}, **own}

        chat = {**rest, "messages": conversation.messages}
        if conversation.tools is not None:
            chat["tools"] = conversation.tools
        return Taken(chat, arguments)

    def asked(self, request: Request) -> Request:
        """The same asked of an OpenAI server; what only Anthropic has goes along by its name."""
        if raw_header(request):
            raise AdapterError(
                "an engine in this process has no raw HTTP response; call create without "
                "with_raw_response or with_streaming_response, or use the HTTP adapter"
            )
        chat = {**request, "messages": list(request["messages"])}
        if "stop_sequences" in chat:
            chat["stop"] = list(chat.pop("stop_sequences"))
        choice = chat.get("tool_choice")
        if isinstance(choice, Mapping):
            named = {"type": "function", "function": {"name": choice.get("name")}}
            chat["tool_choice"] = _CHOICES.get(str(choice.get("type")), named)
        return chat

    def completion(self, body: Mapping[str, Any]) -> Any:
        """A chat completion as the client's message."""
        return self._type("Message").construct(**to_message(body))

    def translator(self) -> EventStream:
        """Chunks to events."""
        return EventStream()

    def chunk(self, body: Mapping[str, Any]) -> Any:
        """An event as the client's object."""
        words = "".join(word.capitalize() for word in str(body["type"]).split("_"))
        return self._type(f"Raw{words}Event").construct(**body)

    def _type(self, name: str) -> Any:
        if self._prefix:
            from anthropic.types import beta as types
        else:
            from anthropic import types  # type: ignore[no-redef]
        return getattr(types, self._prefix + name)

    def helper(self, name: str, events: Any) -> Any:
        """One of the client's classes around a stream of events."""
        from anthropic import NOT_GIVEN
        from anthropic.lib import streaming

        kind = getattr(streaming, self._prefix + name)
        parses = "output_format" in inspect.signature(kind).parameters  # Older ones do not.
        return kind(events, output_format=NOT_GIVEN) if parses else kind(events)

    def streams(self, request: Request) -> bool:
        """Whether the answer is a stream that can be seen."""
        return bool(request.get("stream")) and not raw_header(request)

    def assembly(self) -> Assembly:
        """Events to a completion."""
        return Assembly()

    def cleaned(self, delivery: Callable[[Any], Any]) -> Cleaning:
        """Events without those of recalls."""
        return Cleaning(delivery)

    def given(self, response: Any, whole: Any, told: Any) -> Any:
        """The response, or what is left of it without recalls, in its place."""
        if told is not whole and hasattr(response, "content"):
            message = to_message(told)
            left = {block["id"] for block in message["content"] if block["type"] == "tool_use"}
            kept = [b for b in response.content if b.type != "tool_use" or b.id in left]
            if not left and len(kept) < len(response.content):
                notice = {"type": "text", "text": UNANSWERED, "citations": None}
                kept.append(self._type("TextBlock").construct(**notice))
            response.content = kept
            response.stop_reason = message["stop_reason"]
            for name, count in (told.get("usage") or {}).items():
                setattr(response.usage, name, count)
        return response

    def whole(self, request: Request, response: Any) -> Any:
        """`with_raw_response` gives the response unparsed, `with_streaming_response` unread."""
        if not raw_header(request):
            return to_completion(response)
        seen = raw_header(request) != "stream" and not request.get("stream")
        return to_completion(response.http_response.json()) if seen else None

    def hear(self, response: Any, note: Callable[[Any], None]) -> None:
        """Its events have all there is."""
        return


class _Parsed(_Anthropic):
    """`messages.parse`."""

    def asked(self, request: Request) -> Request:
        """Parsing is done where the client reads its own response."""
        raise AdapterError(
            "an engine in this process does not parse replies into classes; call messages.create "
            "and parse the text"
        )


def _listed(given: Any) -> Any:
    """The client takes any iterable."""
    return given if given is None or isinstance(given, str) else list(given)


class _Unreadable:
    """Messages that raise why they are none, to whoever wants to read them."""

    def __init__(self, error: LeylineError) -> None:
        self._error = error

    def __iter__(self) -> Iterator[Message]:
        raise self._error


# messages.stream gives a manager, whose stream begins when it is entered


def _managed(
    original: Callable[..., Any], manager: Callable[..., Any], library: _Anthropic
) -> Callable[..., Any]:
    """`original` with its manager's stream a turn, begun where the call is made."""

    @functools.wraps(original)
    def stream(*args: Any, **kwargs: Any) -> Any:
        scope = active(library.name)
        taken = library.taken(original, args[1:], kwargs) if scope else None
        if scope is None or taken is None:
            return original(*args, **kwargs)
        exchange = scope.exchange({**taken.request, "stream": True})

        def make() -> Any:
            request = {k: v for k, v in exchange.request.items() if k != "stream"}
            return original(args[0], **taken.arguments(request))

        return manager(make, exchange, library)

    return stream


class _Unsent:
    """A stream that no HTTP response is behind, as the client's helpers want one."""

    response = SimpleNamespace(headers={}, request=SimpleNamespace(headers={}))

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.close = stream.close

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __aiter__(self) -> Any:
        return aiter(self._stream)


class _Managing:
    """Stands for the client's manager.

    Args:
        make: makes one.
        exchange: the call.
        library: the client.
    """

    def __init__(self, make: Callable[[], Any], exchange: Exchange, library: _Anthropic) -> None:
        self._make = make
        self._exchange = exchange
        self._library = library
        self._stream: Any = None

    def __del__(self) -> None:
        self._exchange.failed("abandoned")


class _Manager(_Managing):
    """A synchronous one."""

    def __enter__(self) -> Any:
        exchange, library = self._exchange, self._library
        with failing(exchange), entered(None):
            if exchange.caller is not None:
                raw = taken_over_stream(exchange, exchange.caller, library)
                self._stream = library.helper("MessageStream", _Unsent(raw))
            else:
                self._stream = self._make().__enter__()
                own = self._stream._raw_stream
                self._stream._raw_stream = streamed(own, self._again, exchange, library)
        return self._stream

    def _again(self) -> Any:
        return self._make().__enter__()._raw_stream

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()


class _AsyncManager(_Managing):
    """An asynchronous one."""

    async def __aenter__(self) -> Any:
        exchange, library = self._exchange, self._library
        with failing(exchange), entered(None):
            if exchange.caller is not None:
                raw = taken_over_stream_async(exchange, exchange.caller, library)
                self._stream = library.helper("AsyncMessageStream", _Unsent(raw))
            else:
                self._stream = await self._make().__aenter__()
                own = self._stream._raw_stream
                self._stream._raw_stream = streamed_async(own, self._again, exchange, library)
        return self._stream

    async def _again(self) -> Any:
        return (await self._make().__aenter__())._raw_stream

    async def __aexit__(self, *_: object) -> None:
        if self._stream is not None:
            await self._stream.close()
