"""Clear old tool uses once the context has grown past a trigger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal

from pydantic import Field

from leyline_agent.edit import Edit
from leyline_agent.message import called
from leyline_agent.policy import Policy
from leyline_agent.signals import is_stub, stub, untouched
from leyline_agent.trajectory import ToolResult, Trajectory

__all__ = ["ClearToolUses"]


class ClearToolUses(Policy):
    """Above `trigger` tokens, put a placeholder for every tool result but the `keep` last.

    Source: Anthropic's context editing, `clear_tool_uses_20250919`, in its words and with its
    defaults. `clear_at_least` means two things in the wild. At Anthropic a batch that would clear
    less is not made at all, because it is not worth a broken cache ("all_or_nothing"). In
    LangChain's ClearToolUsesEdit it is where one batch stops: oldest first, until so much is gone,
    or all there is ("batch"; here also not before the view is down to the trigger, else the next
    batch would follow at once). Tokens are estimated from characters, calibrated by the engine's
    last count.

    With trigger=8000 on 8 recorded mini-swe-agent runs, in thousand tokens: prompts 12,089 to
    6,823; computed 669 with a prefix cache only, 236 with REPAIR, 177 with AMORTIZE (append-only
    172). With clear_at_least=4000 as well 7,541; 315, 192 and 176.

    Attributes:
        trigger: clear only while the view is larger than this, in tokens.
        keep: how many results at the end stay.
        clear_at_least: how many tokens a batch clears; 0 for no condition.
        at_least: what `clear_at_least` means.
        exclude_tools: names of tools whose uses are never cleared.
        clear_tool_inputs: clear the arguments of the calls as well.
        placeholder: what stands in a cleared result's place.
    """

    trigger: int = Field(100_000, ge=0)
    keep: int = Field(3, ge=0)
    clear_at_least: int = Field(0, ge=0)
    at_least: Literal["all_or_nothing", "batch"] = "all_or_nothing"
    exclude_tools: tuple[str, ...] = ()
    clear_tool_inputs: bool = False
    placeholder: str = stub("old tool output")

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One batch, oldest first, or nothing below the trigger."""
        if trajectory.tokens() <= self.trigger:
            return
        batch = self._batch(trajectory)
        yield from (result.replace(self.placeholder, reason="cleared") for result in batch)
        if self.clear_tool_inputs:
            yield from self._inputs(trajectory, batch)

    def _batch(self, trajectory: Trajectory) -> list[ToolResult]:
        wanted = self.clear_at_least * trajectory.chars_per_token
        due = self._due(trajectory)
        cleared = list(accumulate(self._saved(result) for result in due))
        if self.at_least == "all_or_nothing":
            return due if cleared and cleared[-1] >= wanted else []
        to_trigger = trajectory.chars - self.trigger * trajectory.chars_per_token
        enough = (n for n, chars in enumerate(cleared, 1) if chars >= max(wanted, to_trigger))
        return due[: next(enough, None)]

    def _saved(self, result: ToolResult) -> int:
        return len(result.content) - len(self.placeholder)

    def _due(self, trajectory: Trajectory) -> list[ToolResult]:
        results = trajectory.tool_results
        old = {result.index for result in results[: max(0, len(results) - self.keep)]}
        return [
            result
            for result in untouched(trajectory)
            if result.index in old
            and result.name not in self.exclude_tools
            and self._saved(result) > 0
        ]

    def _inputs(self, trajectory: Trajectory, batch: Sequence[ToolResult]) -> Iterator[Edit]:
        """Calls without arguments, for messages of which every use is cleared."""
        places = {result.call.index for result in batch if result.call and result.call.name}
        going = {result.index for result in batch}
        left = {call for call in trajectory.tool_calls if call.index in places}
        left -= {
            result.call
            for result in trajectory.tool_results
            if result.call and (result.index in going or self._is_cleared(result))
        }
        for place in sorted(places - {call.index for call in left} - trajectory.pinned):
            message = trajectory.messages[place]
            if isinstance(message.get("tool_calls"), list):
                bare = {**message, "tool_calls": list(map(_bare, message["tool_calls"]))}
                if trajectory.tokens([bare]) < trajectory.tokens([message]):
                    yield Edit(place, place + 1, (bare,), reason="inputs cleared")

    def _is_cleared(self, result: ToolResult) -> bool:
        return result.content == self.placeholder or is_stub(result.content)


def _bare(call: dict[str, object]) -> dict[str, object]:
    """A call with empty arguments; its id and name stay."""
    function = call.get("function")
    if not isinstance(function, dict):
        return call
    _, arguments = called(call)
    empty: object = "{}" if isinstance(arguments, str) else {}
    return {**call, "function": {**function, "arguments": empty}}
