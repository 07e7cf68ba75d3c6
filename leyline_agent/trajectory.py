"""Trajectories: an agent's messages with the tool calls and results found in them.

A `Trajectory` is what a policy reads. It is a snapshot: building one from the previous turn's
parses what changed and nothing else (`Trajectory.extended`, `Trajectory.edited`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, Literal

from leyline_agent import edit as edit_module
from leyline_agent import message as message_module
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.message import Message
from leyline_agent.oddity import Oddity, oddities

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
        position: its place among the calls of one message; tells apart calls whose ids repeat.
    """

    index: int
    id: str
    name: str
    raw_arguments: Any = field(hash=False)
    position: int = 0

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
    message: Message = field(hash=False)

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
        """An edit that puts `content` in this message's place; role and call id stay.

        What harnesses keep beside the content may quote it: where it is redacted, that goes too.
        """
        kept = message_module.canonical(self.message) if redact else self.message
        stub = {**kept, "content": content}
        return Edit(self.index, self.index + 1, (stub,), mode, reason, redact=redact)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A view of an agent's run, with its tool calls and results.

    Attributes:
        messages: what the model sees now.
        original: the unedited history; the trajectory itself when nothing was edited.
        tools: the tool specifications sent along, OpenAI style.
        observations: "tool" when results are tool messages; "user" when a plain-text harness
            puts each in the user message behind the assistant's.
        pinned: indices of `messages` no edit may touch.
        chars_per_token: the estimate behind `tokens`, calibrated by the engine's usage.
        answers: what models said to the policies' questions, by the question's key (`Ask`).
    """

    messages: Sequence[Message]
    # Never None once built: __post_init__ fills it in. Callers see a Trajectory.
    original: Trajectory = field(default=None, repr=False)  # type: ignore[assignment]
    tools: Sequence[Mapping[str, Any]] = ()
    observations: Observations = "tool"
    pinned: frozenset[int] = frozenset()
    chars_per_token: float = DEFAULT_CHARS_PER_TOKEN
    answers: Mapping[str, str] = field(default_factory=dict, repr=False)
    _parsed: InitVar[Sequence[_Record]] = ()
    _records: tuple[_Record, ...] = field(init=False, repr=False)

    def __post_init__(self, _parsed: Sequence[_Record]) -> None:
        messages = tuple(self.messages)
        records = list(_parsed)
        for index in range(len(records), len(messages)):
            records.append(_parse(messages[index], index, records, self.observations))
        object.__setattr__(self, "messages", messages)
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
        answered = set()
        for record in reversed(self._records):
            if record.calls:
                return tuple(call for call in record.calls if call not in answered)
            if record.result is None:
                break
            answered.add(record.result.call)
        return ()

    @cached_property
    def oddities(self) -> tuple[Oddity, ...]:
        """Messages of the history that policies can make little or nothing of, and why."""
        return tuple(oddities(self.original))

    def results_of(self, call: ToolCall) -> tuple[ToolResult, ...]:
        """The results that answer `call`."""
        return tuple(r for r in self.tool_results if r.call == call)

    def tokens(self, messages: Iterable[Message] | None = None) -> int:
        """An estimate of the tokens in `messages` (default: the whole view)."""
        chars = self.chars if messages is None else sum(map(_chars, messages))
        return round(chars / self.chars_per_token)

    @cached_property
    def chars(self) -> int:
        """Characters of text and tool calls in the view; what `tokens` is estimated from."""
        return sum(record.chars for record in self._records)

    def drop_call(self, call: ToolCall, *, mode: Mode | None = None, reason: str = "") -> Edit:
        """An edit that removes a call's assistant message together with all its results."""
        end = call.index + 1
        while end < len(self.messages) and self._records[end].result is not None:
            end += 1
        return Edit(call.index, end, (), mode, reason)

    def extended(self, messages: Sequence[Message]) -> Trajectory:
        """This trajectory and its history with `messages` appended; the rest isn't parsed again."""
        original = None if self.original is self else self.original.extended(messages)
        return self._derived([*self.messages, *messages], self._records, original, self.pinned)

    def edited(self, edits: Sequence[Edit]) -> Trajectory:
        """This trajectory after a legal batch of edits (`edit.check`); the history stays."""
        first = min((e.start for e in edits), default=len(self.messages))
        return self._derived(
            edit_module.apply(edits, self.messages),
            self._records[:first],
            self.original,
            _moved(self.pinned, edits),
        )

    def configured(
        self,
        *,
        original: Trajectory | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        pinned: frozenset[int] = frozenset(),
        chars_per_token: float = DEFAULT_CHARS_PER_TOKEN,
        answers: Mapping[str, str] | None = None,
    ) -> Trajectory:
        """The same view in another setting; nothing is parsed again.

        `original` None makes the trajectory its own history.
        """
        return Trajectory(
            messages=self.messages,
            original=original,  # type: ignore[arg-type]
            tools=tools,
            observations=self.observations,
            pinned=pinned,
            chars_per_token=chars_per_token,
            answers=answers or {},
            _parsed=self._records,
        )

    def _derived(
        self,
        messages: Sequence[Message],
        parsed: Sequence[_Record],
        original: Trajectory | None,
        pinned: frozenset[int],
    ) -> Trajectory:
        return Trajectory(
            messages=messages,
            original=original,  # type: ignore[arg-type]
            tools=self.tools,
            observations=self.observations,
            pinned=pinned,
            chars_per_token=self.chars_per_token,
            answers=self.answers,
            _parsed=parsed,
        )


def _moved(pinned: frozenset[int], edits: Collection[Edit]) -> frozenset[int]:
    """Where pinned messages stand after a batch of edits in front of and behind them."""
    return frozenset(
        index + sum(edit.count_delta for edit in edits if edit.end <= index) for index in pinned
    )


@dataclass(frozen=True)
class _Record:
    calls: tuple[ToolCall, ...] = ()
    result: ToolResult | None = None
    chars: int = 0


def _parse(
    message: Message, index: int, before: Sequence[_Record], observations: Observations
) -> _Record:
    role, chars = message.get("role"), _chars(message)
    if role == "assistant":
        return _Record(_calls(message, index, observations), chars=chars)
    if role in ("tool", "function"):
        result = ToolResult(index, _answered_call(message, before), message)
        return _Record(result=result, chars=chars)
    if role == "user" and observations == "user" and before and before[-1].calls:
        call = _answered_call(message, before)
        return _Record(result=ToolResult(index, call, message) if call else None, chars=chars)
    return _Record(chars=chars)


def _calls(message: Message, index: int, observations: Observations) -> tuple[ToolCall, ...]:
    calls = []
    for position, call in enumerate(message_module.calls(message)):
        name, arguments = message_module.called(call)
        call_id = str(call.get("id") or "")
        calls.append(ToolCall(index, call_id, str(name or ""), arguments, position))
    if not calls and observations == "user":
        text = {"text": message_module.text(message)}
        return (ToolCall(index=index, id="", name="", raw_arguments=text),)
    return tuple(calls)


def _answered_call(message: Message, before: Sequence[_Record]) -> ToolCall | None:
    """The first call of the turn that has no result yet and this message's call id.

    A tool message without a call id answers the next open call, as harnesses without ids do.
    """
    call_id = str(message.get("tool_call_id") or "")
    any_id = not call_id and message.get("role") != "user"
    answered = set()
    for record in reversed(before):
        if record.calls:
            open_calls = (call for call in record.calls if call not in answered)
            return next((call for call in open_calls if any_id or call.id == call_id), None)
        if record.result is None:
            return None
        answered.add(record.result.call)
    return None


def _chars(message: Message) -> int:
    size = len(message_module.text(message))
    for call in message_module.calls(message):
        size += sum(len(str(part or "")) for part in message_module.called(call))
    return size
