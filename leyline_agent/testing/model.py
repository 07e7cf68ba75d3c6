"""A model that says what its script says; as an OpenAI client, a function or a calling adapter."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError
from leyline_agent.message import Message, copy, digest, view_digest
from leyline_agent.receipt import Receipt
from leyline_agent.response import as_messages
from leyline_agent.trajectory import Trajectory

__all__ = ["Answer", "DeterministicModel", "Reply", "chunks", "tokens", "tool_call"]

Reply = str | Message | BaseException | Callable[[list[Message]], Any]
"""What a script holds: text, an assistant message, an error to raise, or a function that, given
the messages, returns one of these."""


class Answer(dict[str, Any]):
    """A response as a dictionary whose keys are attributes too, as clients' objects have them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def answer(value: Any) -> Any:
    """`value` with every dictionary in it an `Answer`."""
    if isinstance(value, Mapping):
        return Answer({key: answer(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [answer(item) for item in value]
    return value


def tool_call(name: str, /, *, content: str = "", id: str = "", **arguments: Any) -> Message:
    """An assistant message that calls one tool; the model numbers calls without an id."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": id, "type": "function", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def tokens(message: Message) -> int:
    """The tokens this module counts for a message: four for its frame, one a four characters."""
    return 4 + -(-Trajectory([message]).chars // 4)


class DeterministicModel:
    """Replies in the order of a script, whatever it is asked, and counts what it is sent.

    It is called as a function, as `model.chat.completions.create`, or handed to a session as a
    `CallingAdapter`. Cached tokens are counted as by an exact prefix cache that never evicts.

    Args:
        replies: the script.
        repeat: begin again at its end; otherwise a call past the end is an `AdapterError`.

    Attributes:
        requests: a copy of every request, oldest first.
    """

    name = "deterministic"
    capabilities = Capabilities(modes=frozenset({Mode.FORGET}))

    def __init__(self, *replies: Reply, repeat: bool = False) -> None:
        self.requests: list[Request] = []
        self._script = replies
        self._repeat = repeat
        self._cached: set[str] = set()

    @property
    def chat(self) -> DeterministicModel:
        """The model itself, so that it stands in for an OpenAI client."""
        return self

    @property
    def completions(self) -> DeterministicModel:
        """The model itself."""
        return self

    def create(self, *, messages: Sequence[Any], stream: bool = False, **options: Any) -> Any:
        """What an OpenAI client's `create` gives: a completion, or an iterator of chunks."""
        request = {"messages": messages, **options}
        return self.stream(request) if stream else self.complete(request)

    __call__ = create

    async def acreate(
        self, *, messages: Sequence[Any], stream: bool = False, **options: Any
    ) -> Any:
        """`create` as an async client has it."""
        request = {"messages": messages, **options}
        return self.astream(request) if stream else self.complete(request)

    def complete(self, request: Request) -> Answer:
        """The next reply as a chat completion."""
        messages = [copy(message) for message in as_messages(request["messages"])]
        self.requests.append({**request, "messages": messages})
        message = self._next(messages)
        usage = self._usage(messages, message)
        made: Answer = answer(
            {
                "id": f"chatcmpl-{len(self.requests)}",
                "object": "chat.completion",
                "created": 0,
                "model": str(request.get("model") or self.name),
                "choices": [{"index": 0, "message": message, "finish_reason": _stopped(message)}],
                "usage": usage,
            }
        )
        return made

    def stream(self, request: Request) -> Iterator[Answer]:
        """The next reply as chunks; the last one carries the usage."""
        return iter(list(chunks(self.complete(request))))

    async def acomplete(self, request: Request) -> Answer:
        """`complete`."""
        return self.complete(request)

    async def astream(self, request: Request) -> AsyncIterator[Answer]:
        """`stream`."""
        for chunk in self.stream(request):
            yield chunk

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request as it is."""
        return request

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """What the usage says."""
        return Receipt.from_usage(response["usage"]) if response.get("usage") else None

    def apply(self, session: str, base_version: int, directives: list[Directive]) -> Receipt:
        """Not to be had: the model knows no tokens."""
        _no_tokens()

    def edit_ahead(self, request: Request, commit: Commit) -> Receipt:
        """Not to be had: the model keeps no sessions."""
        _no_tokens()

    def _next(self, messages: list[Message]) -> Message:
        number = len(self.requests) - 1
        if number >= len(self._script) and not (self._repeat and self._script):
            raise AdapterError(
                f"the script has {len(self._script)} replies and this is call {number + 1}; add "
                "replies or pass repeat=True"
            )
        reply: Any = self._script[number % len(self._script)]
        if callable(reply) and not isinstance(reply, type):
            reply = reply(messages)
        if isinstance(reply, BaseException):
            raise reply
        message = {"role": "assistant", "content": reply} if isinstance(reply, str) else copy(reply)
        for place, call in enumerate(message.get("tool_calls") or ()):
            call["id"] = call.get("id") or f"call_{number}_{place}"
        return message

    def _usage(self, messages: list[Message], reply: Message) -> dict[str, Any]:
        prefixes = _prefixes([*messages, reply])
        known = [prefix in self._cached for prefix in prefixes[:-1]]
        cached = known.index(False) if False in known else len(known)
        self._cached.update(prefixes)
        sizes = [tokens(m) for m in messages]
        return {
            "prompt_tokens": sum(sizes),
            "completion_tokens": tokens(reply),
            "total_tokens": sum(sizes) + tokens(reply),
            "prompt_tokens_details": {"cached_tokens": sum(sizes[:cached])},
        }


def _prefixes(messages: Sequence[Message]) -> list[str]:
    """A hash of every prefix of a conversation, the shortest first."""
    result: list[str] = []
    for message in messages:
        result.append(view_digest([*result[-1:], digest(message)]))
    return result


def _stopped(message: Message) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _no_tokens() -> NoReturn:
    raise AdapterError(
        "the deterministic model knows no tokens and keeps no sessions; use MockAdapter"
    )


def chunks(completion: Mapping[str, Any]) -> Iterator[Answer]:
    """A completion in pieces: words, each call's name and arguments, the end, the usage."""
    choice = completion["choices"][0]
    message = choice["message"]

    def chunk(delta: Message, stopped: str | None = None) -> Answer:
        made: Answer = answer(
            {
                **{key: completion[key] for key in ("id", "created", "model")},
                "object": "chat.completion.chunk",
                "choices": [{"index": 0, "delta": delta, "finish_reason": stopped}],
            }
        )
        return made

    yield chunk({"role": "assistant", "content": ""})
    for word in re.split(r"(?<= )", message.get("content") or ""):
        yield chunk({"content": word})
    for place, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        named = {**call, "index": place, "function": {"name": function["name"], "arguments": ""}}
        yield chunk({"tool_calls": [named]})
        rest = {"index": place, "function": {"arguments": function["arguments"]}}
        yield chunk({"tool_calls": [rest]})
    yield chunk({}, choice["finish_reason"])
    known = ("usage", "leyline")
    last = {key: completion[key] for key in known if key in completion}
    yield Answer(**{**chunk({}), "choices": [], **last})
