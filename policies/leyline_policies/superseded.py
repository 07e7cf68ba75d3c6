"""Only the last output of a call that is made again and again."""

from __future__ import annotations

from collections.abc import Iterator

from leyline_agent.edit import Edit
from leyline_agent.policy import Policy
from leyline_agent.signals import BUILTIN, Stale, ToolEffects, stale
from leyline_agent.signals.invocation import invocation
from leyline_agent.trajectory import ToolResult, Trajectory
from leyline_policies.stubbed import Gone, label, stubbed

__all__ = ["Superseded"]


class Superseded(Policy):
    """Replace the output of a command that was run again, as tests and polling loops are.

    Source: a re-run supersedes its earlier output (CORVUS, arXiv 2607.22711, has it for files). The
    half of `stale_reads` that is about commands, with every other call that was repeated word for
    word, such as `tail build.log`. A run that shows less (`pytest | tail -3`) supersedes no run
    that shows more, and a tool nobody declared may answer differently each time: it supersedes
    nothing unless named in `repeats`. On 8 recorded mini-swe-agent runs, in thousand tokens:
    prompts 12,089 to 11,493; computed 467 with a prefix cache only, 185 with REPAIR, 173 with
    AMORTIZE (append-only 172).

    Attributes:
        repeats: tools of your own of which the last of several equal calls tells all.
    """

    repeats: tuple[str, ...] = ()

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit for each output that a later one replaces."""
        by_place = {result.index: result for result in trajectory.tool_results}
        own = dict.fromkeys(self.repeats, ToolEffects(repeats=True))
        effects = {**BUILTIN, **own} if own else BUILTIN
        found = ((item, by_place[item.superseded_by]) for item in stale(trajectory, effects))
        gone = (
            Gone(item.result, f"{label(later)} was run again later", "rerun")
            for item, later in found
            if _repeats(item, later)
        )
        return stubbed(trajectory, gone)


def _repeats(item: Stale, later: ToolResult) -> bool:
    """Whether the later call is the same run, or the same in every word."""
    before = item.result.call
    if item.kind != "reread" or before is None or later.call is None:
        return item.kind == "rerun"
    return invocation(before) == invocation(later.call)
