"""A framework in small, for tests of what all harnesses share: its message, and how that reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from leyline_agent.message import Message, calls
from leyline_agent.testing import tool_call


@dataclass(frozen=True)
class Note:
    """A framework's message: one call at most, and something that only the framework knows."""

    role: str
    text: str
    call: str = ""
    mark: str = ""


class NoteCodec:
    def read(self, native: Note) -> Message:
        if native.role == "unreadable":
            raise ValueError("no such role")
        message: Message = {"role": native.role, "content": native.text}
        if native.role == "tool":
            message["tool_call_id"] = native.call
        elif native.call:
            called = tool_call("run", content=native.text, id=native.call)
            message["tool_calls"] = called["tool_calls"]
        return message

    def edited(self, native: Note, message: Message) -> Note:
        return replace(native, text=str(message["content"]))

    def made(self, message: Message) -> Note:
        call = message.get("tool_call_id") or next((c["id"] for c in calls(message)), "")
        return Note(message["role"], str(message.get("content") or ""), str(call), "made")
