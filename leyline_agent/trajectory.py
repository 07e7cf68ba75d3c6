"""Trajectories: an agent's messages with the tool calls and results found in them.

A `Trajectory` is what a policy reads. It is a snapshot: building one from the previous turn's
costs what changed (`Trajectory.extended`, `Trajectory.edited`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from leyline_agent import edit as edit_module
from leyline_agent import message as message_module
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.message import Message

__all__ = ["Observations", "ToolCall", "ToolResult", "Trajectory"]

Observations = Literal["tool", "user"]
DEFAULT_CHARS_PER_TOKEN = 4.0


@dataclass(frozen=True)
class ToolCall:
    """One call an assistant message makes.

    Attributes:
        index: place of the assistant message in the view.
        id: the call's id; "" where the harness speaks plain text.
        name: the tool's name; "" where the harness speaks plain text.
        raw_arguments: the arguments as sent, usually JSON text.
    """

    index: int
    id: str
    name: str
    raw_arguments: Any

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments parsed; {} when they are not a JSON object (see `malformed`)."""
        return self._parsed or {}

    @property
    def malformed(self) -> bool:
        """Whether the arguments are neither a JSON object nor absent."""
        return self._parsed is None

    @cached_property
    def _parsed(self) -> dict[str, Any] | None:
        raw = self.raw_arguments
        if isinstance(raw, str):
            if not raw.strip():
                return {}
            try:
                raw = json.loads(raw)
            except ValueError:
                return None
        if raw is None:
            return {}
        return dict(raw) if isinstance(raw, Mapping) else None


@dataclass(frozen=True)
class ToolResult:
    """One tool result ("observation").

    Attributes:
        index: place of the message in the view.
        call: the call it answers; None when none is in the view.
        message: the message itself.
    """

    index: int
    call: ToolCall | None
    message: Message

    @cached_property
    def content(self) -> str:
        """The text of the result."""
        return message_module.text(self.message)

    @property
    def name(self) -> str:
        """The tool's name, "" when unknown."""
        return self.call.name if self.call else str(self.message.get("name") or "")

    def replace(
        self, content: str, *, mode: Mode | None = None, reason: str = "", redact: bool = False
    ) -> Edit:
        """An edit that puts `content` in this message's place; role and call id stay."""
        stub = {**self.message, "content": content}
        return Edit(self.index, self.index + 1, (stub,), mode, reason, redact=redact)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A view of an agent's run, with its tool calls and results.

    Attributes:
        messages: what the model sees now.
        original: the unedited history; None when this *is* the history.
        tools: the tool specifications sent along, OpenAI style.
        observations: "tool" when results are tool messages; "user" when a plain-text harness
            puts them in user messages behind the assistant's.
        pinned: indices of `messages` no edit may touch.
        chars_per_token: the estimate behind `tokens`, calibrated by the engine's usage.
    """

    messages: Sequence[Message]
    original: Trajectory | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    observations: Observations = "tool"
    pinned: frozenset[int] = frozenset()
    chars_per_token: float = DEFAULT_CHARS_PER_TOKEN
    _records: tuple[_Record, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        records = list(self._records[: len(self.messages)])
        for index in range(len(records), len(self.messages)):
            records.append(_parse(self.messages[index], index, records, self.observations))
        object.__setattr__(self, "_records", tuple(records))
        if self.original is None:
            object.__setattr__(self, "original", self)

    @cached_property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """Every tool call, in order."""
        return tuple(call for record in self._records for call in record.calls)

    @cached_property
    def tool_results(self) -> tuple[ToolResult, ...]:
        """Every tool result, in order."""
        return tuple(record.result for record in self._records if record.result is not None)

    @cached_property
    def pending(self) -> tuple[ToolCall, ...]:
        """The calls of the last assistant message that have no result yet: they run now."""
        if not self.tool_calls:
            return ()
        last = self.tool_calls[-1].index
        answered = {r.call.id for r in self.tool_results if r.call and r.call.index == last}
        if any(m.get("role") == "user" for m in self.messages[last + 1 :]):
            return ()
        return tuple(c for c in self.tool_calls if c.index == last and c.id not in answered)

    def results_of(self, call: ToolCall) -> tuple[ToolResult, ...]:
        """The results that answer `call`."""
        return tuple(r for r in self.tool_results if r.call == call)

    def tokens(self, messages: Iterable[Message] | None = None) -> int:
        """An estimate of the tokens in `messages` (default: the whole view)."""
        chosen = self.messages if messages is None else messages
        return round(sum(map(_chars, chosen)) / self.chars_per_token)

    def drop_call(self, call: ToolCall, *, mode: Mode | None = None, reason: str = "") -> Edit:
        """An edit that removes a call's assistant message together with all its results."""
        end = call.index + 1
        while end < len(self.messages) and self._records[end].result is not None:
            end += 1
        return Edit(call.index, end, (), mode, reason)

    def extended(self, messages: Sequence[Message]) -> Trajectory:
        """This trajectory with `messages` appended; what is there is not parsed again."""
        return self._derived([*self.messages, *messages], len(self.messages))

    def edited(self, edits: Sequence[Edit]) -> Trajectory:
        """This trajectory after a legal batch of edits (`edit.check`)."""
        first = min((e.start for e in edits), default=len(self.messages))
        return self._derived(edit_module.apply(edits, self.messages), first)

    def _derived(self, messages: Sequence[Message], parsed: int) -> Trajectory:
        original = None if self.original is self else self.original
        return Trajectory(
            messages=messages,
            original=original,
            tools=self.tools,
            observations=self.observations,
            pinned=self.pinned,
            chars_per_token=self.chars_per_token,
            _records=self._records[:parsed],
        )


@dataclass(frozen=True)
class _Record:
    calls: tuple[ToolCall, ...] = ()
    result: ToolResult | None = None


def _parse(
    message: Message, index: int, before: Sequence[_Record], observations: Observations
) -> _Record:
    role = message.get("role")
    if role == "assistant":
        return _Record(calls=_calls(message, index, observations))
    if role in ("tool", "function") or (observations == "user" and role == "user"):
        call = _answered_call(message, before)
        if role == "user" and call is None:
            return _Record()
        return _Record(result=ToolResult(index, call, message))
    return _Record()


def _calls(message: Message, index: int, observations: Observations) -> tuple[ToolCall, ...]:
    calls = tuple(
        ToolCall(
            index=index,
            id=str(call.get("id") or ""),
            name=str((call.get("function") or {}).get("name") or ""),
            raw_arguments=(call.get("function") or {}).get("arguments"),
        )
        for call in message.get("tool_calls") or ()
    )
    if not calls and observations == "user":
        text = {"text": message_module.text(message)}
        return (ToolCall(index=index, id="", name="", raw_arguments=text),)
    return calls


def _answered_call(message: Message, before: Sequence[_Record]) -> ToolCall | None:
    call_id = str(message.get("tool_call_id") or "")
    for record in reversed(before):
        if record.calls:
            return next((call for call in record.calls if call.id == call_id), None)
        if record.result is None:
            return None
    return None


def _chars(message: Message) -> int:
    size = len(message_module.text(message))
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        size += len(str(function.get("name") or "")) + len(str(function.get("arguments") or ""))
    return size
