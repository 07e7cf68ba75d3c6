"""Answers of Anthropic's Messages API as chat completions, and chat completions as such answers.

The first is for sessions; the second for an engine that speaks chat and answers Anthropic's client.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from leyline_adapters.anthropic.blocks import is_thinking, made
from leyline_agent.readers.anthropic_messages import to_chat
from leyline_agent.response import as_dict, reply

__all__ = ["Assembly", "events", "to_completion", "to_message"]

_FINISHED = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_STOPPED = {"tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}


def to_completion(answer: Any) -> dict[str, Any] | None:
    """The chat completion of an answer, a dictionary or the client's object; None if it is none.

    Its `usage` stays in Anthropic's words, and what else a receipt is read from stays beside it.
    """
    body = as_dict(answer)
    if body is None or body.get("type") != "message" or not isinstance(body.get("content"), list):
        return None
    (message,) = to_chat([{"role": "assistant", "content": body["content"]}])
    thinking = [as_dict(block) for block in body["content"] if is_thinking(block)]
    if thinking:  # As litellm calls it; the API wants it back in front of the calls.
        message["thinking_blocks"] = thinking
    stopped = body.get("stop_reason")
    choice = {"index": 0, "message": message, "finish_reason": _FINISHED.get(str(stopped))}
    kept = ("id", "model", "usage", "context_management", "leyline")
    told = {key: body[key] for key in kept if body.get(key) is not None}
    return {**told, "object": "chat.completion", "choices": [choice]}


def to_message(completion: Mapping[str, Any]) -> dict[str, Any]:
    """The answer that a chat completion is in Anthropic's form."""
    choice: Mapping[str, Any] = next(iter(completion.get("choices") or ()), {})
    return {
        "id": str(completion.get("id") or ""),
        "type": "message",
        "role": "assistant",
        "model": str(completion.get("model") or ""),
        "content": made(reply(completion) or {"role": "assistant", "content": ""}),
        "stop_reason": _STOPPED.get(str(choice.get("finish_reason")), "end_turn"),
        "stop_sequence": None,
        "usage": _usage(completion.get("usage") or {}),
        **({"leyline": completion["leyline"]} if completion.get("leyline") else {}),
    }


def _usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """What OpenAI counts as part of the prompt Anthropic counts beside it."""
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return {
        "input_tokens": int(usage.get("prompt_tokens") or 0) - int(cached or 0),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": None,
        "output_tokens": int(usage.get("completion_tokens") or 0),
    }


class Assembly:
    """Events of a streamed answer, put together to a chat completion.

    Attributes:
        error: what the upstream said went wrong on the way; "" when nothing did.
        ended: whether nothing follows any more.
    """

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self.error = ""
        self.ended = False

    @property
    def finished(self) -> bool:
        """Whether the reply is whole, though figures or the end may follow."""
        return self._message.get("stop_reason") is not None

    @property
    def first_call(self) -> str:
        """The name of the first tool called; "" while there is none."""
        uses = (block for block in self._blocks.values() if block.get("type") == "tool_use")
        return str(next(uses, {}).get("name") or "")

    @property
    def several(self) -> bool:
        """There is only ever one reply."""
        return False

    def add(self, event: Any) -> None:
        """Take one event into account; one of a kind not known here is ignored."""
        body = as_dict(event) or {}
        kind = body.get("type")
        if kind == "message_start":
            self._message = dict(body.get("message") or {})
        elif kind == "content_block_start":
            self._blocks[body["index"]] = dict(body.get("content_block") or {})
        elif kind == "content_block_delta":
            self._extend(body["index"], body.get("delta") or {})
        elif kind == "message_delta":
            self._end(body)
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            error = body.get("error") or {}
            self.error = str(error.get("message") or error.get("type") or "error")
        self.note(body)

    def note(self, event: Any) -> None:
        """Take the figures in an event into account, and nothing else."""
        found = event.get("leyline") if isinstance(event, Mapping) else None
        if found:
            self._message["leyline"] = found

    def forget_figures(self) -> None:
        """Drop what was noted: it was another stream's."""
        self._message.pop("leyline", None)

    def _extend(self, index: int, delta: Mapping[str, Any]) -> None:
        block = self._blocks.setdefault(index, {})
        kind = delta.get("type")
        if kind == "text_delta":
            block["text"] = block.get("text", "") + delta.get("text", "")
        elif kind == "thinking_delta":
            block["thinking"] = block.get("thinking", "") + delta.get("thinking", "")
        elif kind == "signature_delta":
            block["signature"] = delta.get("signature")
        elif kind == "input_json_delta":
            self._inputs.setdefault(index, []).append(delta.get("partial_json") or "")

    def _end(self, body: Mapping[str, Any]) -> None:
        """The counts here are of the whole answer; those it leaves out were told at its start."""
        usage = {k: v for k, v in (body.get("usage") or {}).items() if v is not None}
        self._message["usage"] = {**(self._message.get("usage") or {}), **usage}
        self._message.update(body.get("delta") or {})
        if body.get("context_management") is not None:
            self._message["context_management"] = body["context_management"]

    def response(self) -> dict[str, Any] | None:
        """The chat completion; None when no event told anything of one."""
        if not self._message:
            return None
        blocks = [self._block(index) for index in sorted(self._blocks)]
        return to_completion({**self._message, "type": "message", "content": blocks})

    def _block(self, index: int) -> dict[str, Any]:
        told = "".join(self._inputs.get(index, ()))
        if not told:
            return self._blocks[index]
        try:
            given = json.loads(told)
        except ValueError:  # Cut off by max_tokens; the client refuses it or repairs it.
            given = {"arguments": told}
        return {**self._blocks[index], "input": given}


class _Open:
    """The block that is being streamed."""

    def __init__(self) -> None:
        self.index = -1
        self.key: Any = None

    def start(self, key: Any, block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Begin a block, unless it is the one that is open."""
        if key != self.key:
            yield from self.stop()
            self.key = key
            self.index += 1
            yield {"type": "content_block_start", "index": self.index, "content_block": block}

    def delta(self, **delta: Any) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self.index, "delta": delta}

    def stop(self) -> Iterator[dict[str, Any]]:
        """End the block that is open, if one is."""
        if self.key is not None:
            yield {"type": "content_block_stop", "index": self.index}
        self.key = None


def events(chunks: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events of a streamed answer, of the chunks of a streamed chat completion."""
    stream = EventStream()
    for chunk in chunks:
        yield from stream.add(chunk)
    yield from stream.end()


class EventStream:
    """Makes events of chunks, one chunk after the other."""

    def __init__(self) -> None:
        self._open = _Open()
        self._started = False
        self._finish_reason: str | None = None
        self._told: dict[str, Any] = {}

    def add(self, chunk: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The events that one chunk gives."""
        if not self._started:
            self._started = True
            empty = to_message({"id": chunk.get("id"), "model": chunk.get("model")})
            yield {"type": "message_start", "message": {**empty, "stop_reason": None}}
        self._told.update({k: chunk[k] for k in ("usage", "leyline") if chunk.get(k)})
        for choice in chunk.get("choices") or ():
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            yield from self._deltas(choice.get("delta") or {})

    def _deltas(self, delta: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if delta.get("content"):
            yield from self._open.start("text", {"type": "text", "text": ""})
            yield self._open.delta(type="text_delta", text=delta["content"])
        for place, call in enumerate(delta.get("tool_calls") or ()):
            function = call.get("function") or {}
            use = {"type": "tool_use", "id": call.get("id"), "name": function.get("name")}
            yield from self._open.start(call.get("index", place), {**use, "input": {}})
            if function.get("arguments"):
                yield self._open.delta(type="input_json_delta", partial_json=function["arguments"])

    def end(self) -> Iterator[dict[str, Any]]:
        """The last events."""
        yield from self._open.stop()
        last = to_message({**self._told, "choices": [{"finish_reason": self._finish_reason}]})
        delta = {key: last[key] for key in ("stop_reason", "stop_sequence")}
        told = {"leyline": last["leyline"]} if "leyline" in last else {}
        yield {"type": "message_delta", "delta": delta, "usage": last["usage"], **told}
        yield {"type": "message_stop"}
