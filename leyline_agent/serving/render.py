"""Rendering: messages become the model's tokens, at the cost of what changed.

The chat template makes text; the text is split at the tokenizer's added tokens, where a tokenizer
splits first anyway, and each piece's ids are remembered. A reply the model sampled itself is put
back as the very ids it sampled, so an append-only turn extends the cached sequence exactly.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from leyline_agent import message as message_module
from leyline_agent.errors import ContextOverflow, InvalidRequest
from leyline_agent.message import Message
from leyline_agent.serving.local_template import LocalChat, is_local
from leyline_agent.serving.tool_calls import forget_calls, native_messages, plain_messages

__all__ = ["ChatRenderer", "Replies", "SessionRenderer", "well_formed"]

ReplyKey = tuple[str, tuple[tuple[str, str, str], ...]]
_CACHED_PIECES = 16384
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "leyline_probe_tool",
        "description": "probe",
        "parameters": {"type": "object", "properties": {}},
    },
}
# For models that come without a chat template.
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SAMPLED: Message = {"role": "assistant", "content": ""}


@dataclass
class Replies:
    """The ids a session's replies were sampled as, by what the reply says."""

    ids: dict[ReplyKey, tuple[int, ...]] = field(default_factory=dict)

    def keep(self, reply: Message, ids: Sequence[int]) -> None:
        """Remember that `reply` was sampled as `ids` (without an end-of-turn token)."""
        self.ids.setdefault(_reply_key(reply), tuple(ids))

    def retain(self, view: Sequence[Message]) -> None:
        """Forget every reply that is not in the view."""
        keys = {_reply_key(message) for message in view}
        self.ids = {key: ids for key, ids in self.ids.items() if key in keys}

    def find(self, message: Message) -> tuple[int, ...] | None:
        """The ids of a reply that comes back unchanged."""
        return self.ids.get(_reply_key(message)) if self.ids else None


def _is_reply(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant"


def _reply_key(message: Mapping[str, Any]) -> ReplyKey:
    calls = tuple(
        (
            str(call.get("id")),
            str((call.get("function") or {}).get("name")),
            str((call.get("function") or {}).get("arguments")),
        )
        for call in message.get("tool_calls") or ()
    )
    return message_module.text(message), calls


class ChatRenderer:
    """Renders messages with a tokenizer's chat template.

    Attributes:
        tools_native: the template renders tools and tool results itself; otherwise they are
            written into plain messages (`tool_calls.plain_messages`).
        stop_ids: tokens that end a reply.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.template: str = tokenizer.chat_template or _CHATML
        self._nonce = secrets.token_hex(4)
        self._added = self._added_pattern()
        self._encode = lru_cache(maxsize=_CACHED_PIECES)(self._encode_piece)
        self.tools_native = self._probe_tools()
        self.stop_ids = self._find_stop_ids()
        self._local = self._find_local()
        self._most_chars: int | None = None

    def limit(self, num_tokens: int) -> None:
        """From now on `check_size` refuses what no tokens of that number can say."""
        longest = self._longest_token()
        self._most_chars = None if longest is None else num_tokens * longest

    def check_size(self, messages: Sequence[Message]) -> None:
        """Refuse messages far too long, before time is spent on reading them.

        Replies do not count: a template may leave parts of them out.

        Raises:
            ContextOverflow: their characters are more than the longest tokens could say.
        """
        if self._most_chars is None:
            return
        size = sum(len(message_module.text(m)) for m in messages if not _is_reply(m))
        if size > self._most_chars:
            raise ContextOverflow(
                f"{size} characters are more than the model's context can hold, whatever they are "
                f"(at most {self._most_chars}); shorten the conversation, or let a policy do it"
            )

    def text(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt as text, ending with the generation prompt.

        Raises:
            InvalidRequest: the template refuses these messages.
        """
        if self.tools_native:
            return self._apply(native_messages(messages), list(tools) or None)
        return self._apply(plain_messages(messages, tools), None)

    def encode(self, text: str) -> list[int]:
        """The ids of rendered text; equal to encoding it whole."""
        text = well_formed(text)
        ids: list[int] = []
        if self._added is None:
            return list(self._encode(text))
        for piece in self._added.split(text):
            if piece:
                ids.extend(self._encode(piece))
        return ids

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        replies: Replies | None = None,
    ) -> list[int]:
        """The prompt's tokens, with known replies as the ids they were sampled as."""
        ids = self._render_local(messages, tools, replies)
        return self._render_whole(messages, tools, replies) if ids is None else ids

    def forget_texts(self) -> None:
        """Forget the ids of every text seen so far."""
        forget_calls()
        self._encode.cache_clear()
        self._local = self._find_local()

    def _render_local(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        replies: Replies | None,
    ) -> list[int] | None:
        """The same, message by message; None where the template does not allow it."""
        if self._local is None or not messages:
            return None
        known = [replies.find(m) if replies and _is_reply(m) else None for m in messages]
        # What a known reply says is in its ids.
        said = [m if ids is None else _SAMPLED for m, ids in zip(messages, known, strict=True)]
        plain = plain_messages(said, tools)
        known[:0] = [None] * (len(plain) - len(messages))  # where a message declares the tools
        return self._local.render(plain, known)

    def _render_whole(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        replies: Replies | None,
    ) -> list[int]:
        marked, found = self._mark(messages, replies)
        ids = self._render_marked(marked, tools, found) if found else None
        return self.encode(self.text(messages, tools)) if ids is None else ids

    def _render_marked(
        self,
        marked: Sequence[Message],
        tools: Sequence[Mapping[str, Any]],
        found: Mapping[str, tuple[int, ...]],
    ) -> list[int] | None:
        """None where the template changes or repeats a reply, or must see the calls in it."""
        try:
            text = self.text(marked, tools)
        except InvalidRequest:
            return None
        pieces = re.split(f"\ue000{self._nonce}:([0-9]+)\ue001", text)
        if sorted(pieces[1::2]) != sorted(found):
            return None
        ids: list[int] = []
        for index, piece in enumerate(pieces):
            ids.extend(found[piece] if index % 2 else self.encode(piece))
        return ids

    def _mark(
        self, messages: Sequence[Message], replies: Replies | None
    ) -> tuple[Sequence[Message], dict[str, tuple[int, ...]]]:
        """The messages with known replies as markers, and the markers' ids."""
        if replies is None or not replies.ids:
            return messages, {}
        marked: list[Message] = []
        found: dict[str, tuple[int, ...]] = {}
        for message in messages:
            ids = replies.find(message) if _is_reply(message) else None
            if ids is None:
                marked.append(message)
                continue
            number = str(len(found))
            found[number] = ids
            content = f"\ue000{self._nonce}:{number}\ue001"
            marked.append({"role": "assistant", "content": content})
        return marked, found

    def _find_local(self) -> LocalChat | None:
        """Renders message by message, where template and tokenizer allow it."""
        added = self._added
        if added is None or self.tools_native or not is_local(self.template):
            return None
        return LocalChat(
            apply=lambda messages, prompt: self._apply(messages, None, prompt=prompt),
            encode=self.encode,
            starts_split=lambda text: added.match(text) is not None,
        )

    def _apply(
        self, messages: Sequence[Message], tools: list[Any] | None, *, prompt: bool = True
    ) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(messages),
                tools=tools,
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=prompt,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            raise InvalidRequest(
                f"the model's chat template refuses these messages: {error}"
            ) from error
        return text

    def _added_pattern(self) -> re.Pattern[str] | None:
        """Splits at added tokens; None where that would not equal encoding the whole text."""
        added = self.tokenizer.added_tokens_decoder.values()
        if any(t.lstrip or t.rstrip or t.single_word for t in added):
            return None
        contents = sorted((t.content for t in added), key=len, reverse=True)
        if not contents or not self._starts_plain():
            return None
        return re.compile("(" + "|".join(map(re.escape, contents)) + ")")

    def _starts_plain(self) -> bool:
        """Whether the tokenizer adds nothing at the start of a text (SentencePiece may)."""
        marker = next(iter(self.tokenizer.added_tokens_decoder.values())).content
        tokenizer = self.tokenizer
        whole = tokenizer.encode(f"{marker}word{marker} word", add_special_tokens=False)
        parts = [tokenizer.encode(p, add_special_tokens=False) for p in (marker, "word", " word")]
        return bool(whole == [*parts[0], *parts[1], *parts[0], *parts[2]])

    def _longest_token(self) -> int | None:
        """Characters of the longest token; None where a token may stand for any number of them."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None or backend.normalizer is not None or backend.model.unk_token is not None:
            return None
        return max(map(len, self.tokenizer.get_vocab()))

    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(piece, add_special_tokens=False))

    def _probe_tools(self) -> bool:
        """Whether the template shows a tool's declaration, a call and its result."""
        call = {
            "id": "probe1",
            "type": "function",
            "function": {"name": "leyline_probe_tool", "arguments": {"leyline_arg": "x"}},
        }
        messages: list[Message] = [
            {"role": "user", "content": "probe"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "probe1", "content": "leyline_probe_result"},
        ]
        try:
            text = self._apply(messages, [_PROBE_TOOL])
        except InvalidRequest:
            return False
        shown = ("leyline_arg", "leyline_probe_result")
        return text.count("leyline_probe_tool") >= 2 and all(word in text for word in shown)

    def _find_stop_ids(self) -> frozenset[int]:
        """The end-of-sequence token, and what the template puts behind a reply."""
        stops = {self.tokenizer.eos_token_id}
        text = self._apply(
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\ue000"}], None
        )
        behind = self.encode(text.partition("\ue000")[2])
        if behind and behind[0] in self.tokenizer.added_tokens_decoder:
            stops.add(behind[0])
        return frozenset(stop for stop in stops if stop is not None)


def well_formed(text: str) -> str:
    """The text with U+FFFD for halves of surrogate pairs, which JSON can hold and no encoding."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class SessionRenderer:
    """A `lowering.Renderer` for one session: the chat renderer with the session's replies."""

    chat: ChatRenderer
    replies: Replies

    def render(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[int]:
        """The tokens of the messages, ending with the generation prompt."""
        return self.chat.render(messages, tools, self.replies)
