"""Cut what an abandoned approach printed, once the agent has said that it takes another one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field

from leyline_agent import message as message_module
from leyline_agent.edit import Edit
from leyline_agent.policy import Policy
from leyline_agent.signals import failure
from leyline_agent.signals.effects import effects_of
from leyline_agent.signals.history import originals
from leyline_agent.signals.outputs import Read
from leyline_agent.trajectory import ToolResult, Trajectory
from leyline_policies.stubbed import Gone, stubbed

__all__ = ["PivotTrim"]

_CUE = re.compile(
    r"(?i)\b(?:a (?:completely |totally |very )?different|another) approach\b"
    r"|\b(?:let me|let's|i will|i'll) start (?:over|again|from scratch)\b"
)


class PivotTrim(Policy):
    """Stub what the last `reach` results before "let me try a different approach" printed.

    Conservative: it waits until `after` results stand behind that message; the result right before
    it stays, being why the agent turned; so does every file shown, which the next approach needs
    as well; and it reaches back no further than the turn before, or what the user said last. The
    calls stay, so that it is plain what was tried. The cue is a few English phrases in the
    assistant's own words; an agent that turns without saying so is not noticed.

    Source: ours. Agents seldom say so, and little goes: on 8 recorded mini-swe-agent runs 4 edits,
    in thousand tokens prompts 12,089 to 12,051, computed 175 with a prefix cache only, 172 with
    REPAIR and with AMORTIZE (append-only 172).

    Attributes:
        reach: how many results before the cue may go.
        after: how many results must follow the cue.
    """

    reach: int = Field(5, ge=1)
    after: int = Field(4, ge=1)

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit for each output of an abandoned approach."""
        return stubbed(trajectory, self._abandoned(trajectory))

    def _abandoned(self, trajectory: Trajectory) -> Iterator[Gone]:
        results = list(zip(trajectory.tool_results, originals(trajectory), strict=True))
        places = {result.index for result in trajectory.tool_results}
        tried: list[tuple[ToolResult, ToolResult]] = []
        seen = 0
        for index, message in enumerate(trajectory.messages):
            role = message.get("role")
            if index in places:
                tried.append(results[seen])
                seen += 1
            elif role == "user":
                tried = []
            elif role == "assistant" and (cue := _CUE.search(message_module.text(message))):
                if len(results) - seen >= self.after:
                    for result, original in tried[:-1][-self.reach :]:
                        if not _shows_files(original):
                            yield Gone(result, f'abandoned, then: "{cue[0]}"', "abandoned")
                tried = []


def _shows_files(result: ToolResult) -> bool:
    """Whether a result shows a part of a file, and not that the call failed."""
    shows = effects_of(result).shows
    return failure(result) is None and any(isinstance(piece, Read) for piece in shows)
