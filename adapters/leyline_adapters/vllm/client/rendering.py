"""Rendering by the server: its chat template, its tokenizer, its tokens.

A reply comes back from a harness as text, and text may read as other tokens than were sampled. Such
a reply is put back as what was sampled, so that a turn which only appends extends the KV held.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline_adapters.vllm.client.connection import NO_TOKENS
from leyline_agent.errors import AdapterError
from leyline_agent.lowering import common_prefix, common_suffix
from leyline_agent.message import Message, canonical

__all__ = ["Replies", "ServerRenderer", "SessionRenderer", "Tokens"]

Tokens = tuple[int, ...]
_REMEMBERED = 64  # renderings
_TEMPLATE = ("chat_template", "chat_template_kwargs", "add_special_tokens", "mm_processor_kwargs")


@dataclass(frozen=True)
class _Frame:
    """What a template puts around a reply: the generation prompt, and what ends a turn."""

    head: Tokens
    tail: Tokens


class ServerRenderer:
    """Renders messages by vLLM's `/tokenize`, and remembers the last renderings. Thread-safe.

    Args:
        post: sends a body to `/tokenize` and gives the answer.
    """

    def __init__(self, post: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._post = post
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, Tokens] = OrderedDict()
        self._frames: dict[str, _Frame] = {}

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        template: Mapping[str, Any] | None = None,
        *,
        prompt: bool = True,
    ) -> Tokens:
        """The tokens of the messages; with `prompt`, ending with the generation prompt."""
        body: dict[str, Any] = {"messages": list(messages), **(template or {})}
        if tools:
            body["tools"] = list(tools)
        if not prompt:
            body["add_generation_prompt"] = False
        key = hashlib.blake2b(repr(body).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        tokens = _tokens(self._post(body))
        with self._lock:
            self._known[key] = tokens
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return tokens

    def forget(self) -> None:
        """Forget every rendering."""
        with self._lock:
            self._known.clear()

    def frame(self, template: Mapping[str, Any] | None = None) -> _Frame:
        """What stands around a reply, found with two replies that have nothing in common."""
        key = repr(template)
        if key not in self._frames:
            ask: Message = {"role": "user", "content": "q"}
            open_, shut = (self.render([ask], (), template, prompt=p) for p in (True, False))
            one, other = (
                self.render([ask, {"role": "assistant", "content": c}], (), template, prompt=False)
                for c in ("a", "7")
            )
            shorter = min(len(one), len(other)) - common_prefix(one, other)
            size = common_suffix(one, other, shorter)
            head = open_[common_prefix(open_, shut) :]
            self._frames[key] = _Frame(head, one[len(one) - size :] if size else ())
        return self._frames[key]


@dataclass
class _Reply:
    """A reply that may read as other tokens than were sampled.

    Attributes:
        before: its prompt as the server renders it, without any reply put back.
        sampled: its tokens.
        read: what its text is rendered as; None until that is known.
    """

    before: Tokens
    sampled: Tokens
    read: Tokens | None = None

    @property
    def differs(self) -> bool:
        return self.read is not None and self.read != self.sampled


@dataclass
class Replies:
    """A session's replies by what they say, and as what they were sampled."""

    known: OrderedDict[str, _Reply] = field(default_factory=OrderedDict)

    def keep(self, reply: Message, before: Tokens, sampled: Sequence[int]) -> None:
        """Remember that behind the prompt `before` the reply was sampled as these tokens."""
        if sampled:
            self.known.setdefault(_key(reply), _Reply(before, tuple(sampled)))

    def retain(self, view: Sequence[Message]) -> None:
        """Forget every reply that is not in the view."""
        keys = {_key(message) for message in view if message.get("role") == "assistant"}
        for key in [key for key in self.known if key not in keys]:
            del self.known[key]

    def in_view(self, view: Sequence[Message]) -> list[_Reply]:
        """The known replies of a view, in order."""
        if not self.known:
            return []
        keys = (_key(message) for message in view if message.get("role") == "assistant")
        found = (self.known.get(key) for key in keys)
        return [reply for reply in found if reply is not None]


@dataclass(frozen=True)
class SessionRenderer:
    """A `lowering.Renderer` for one session: the server's, with the session's replies put back."""

    server: ServerRenderer
    replies: Replies
    template: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, server: ServerRenderer, replies: Replies, request: Mapping[str, Any]
    ) -> SessionRenderer:
        """The renderer of a request, which may say what its template is given."""
        template = {key: request[key] for key in _TEMPLATE if request.get(key) is not None}
        effort = request.get("reasoning_effort")
        if effort is not None:  # as vLLM's chat endpoint hands it to the template
            given = template.get("chat_template_kwargs") or {}
            asked = {"reasoning_effort": effort, "enable_thinking": effort != "none"}
            template["chat_template_kwargs"] = {**asked, **given}
        return cls(server, replies, template)

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """The tokens of the messages, ending with the generation prompt."""
        tokens = self.plain(messages, tools)
        for reply in self.replies.in_view(messages):
            if reply.read is None:
                self._learn(reply, tokens)
        put_back = [reply for reply in self.replies.in_view(messages) if reply.differs]
        return self._with_replies(list(tokens), put_back) if put_back else list(tokens)

    def plain(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> Tokens:
        """The same without replies put back."""
        return self.server.render(messages, tools, self.template)

    def _learn(self, reply: _Reply, tokens: Tokens) -> None:
        """What a reply reads as, where these tokens go on from its prompt."""
        size = len(reply.before)
        if tokens[:size] != reply.before:
            return
        tail = self.server.frame(self.template).tail
        end = _find(tokens, tail, size) if tail else -1
        if end >= 0:
            reply.read = tokens[size:end]

    def _with_replies(self, tokens: list[int], replies: Sequence[_Reply]) -> list[int]:
        """Each in its place: between what a template puts around a reply."""
        frame = self.server.frame(self.template)
        cursor = 0
        for reply in replies:
            read = (*frame.head, *(reply.read or ()), *frame.tail)
            found = _find(tokens, read, cursor)
            if found < 0:
                continue
            start = found + len(frame.head)
            tokens[start : start + len(reply.read or ())] = reply.sampled
            cursor = start + len(reply.sampled)
        return tokens


def _find(tokens: Sequence[int], part: Sequence[int], start: int) -> int:
    """Where `part` stands in `tokens` from `start` on; -1 where it does not."""
    part, size = tuple(part), len(part)
    for at in range(start, len(tokens) - size + 1):
        if tokens[at] == part[0] and tuple(tokens[at : at + size]) == part:
            return at
    return -1


def _key(message: Mapping[str, Any]) -> str:
    return repr(sorted(canonical(message).items(), key=lambda item: item[0]))


def _tokens(answer: Mapping[str, Any]) -> Tokens:
    found = answer.get("tokens")
    if not (isinstance(found, list) and found) or not all(type(token) is int for token in found):
        raise AdapterError(NO_TOKENS)
    return tuple(found)
