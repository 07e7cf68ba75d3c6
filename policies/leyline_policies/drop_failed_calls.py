"""Stub the outputs of failed calls, keeping one line of what failed."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from leyline_agent.edit import Edit
from leyline_agent.policy import Policy
from leyline_agent.signals import failures, stub, untouched
from leyline_agent.trajectory import Trajectory

__all__ = ["DropFailedCalls"]

_SUMMARY_CHARS = 120


class DropFailedCalls(Policy):
    """Replace the output of a failed call, `after` results later, by one line of what failed.

    The most recent failure stays whole: it may be the problem being worked on. What counts as a
    failure, and what says so, is `leyline_agent.signals.failures`.

    Simulated prefill of 183 recorded mini-swe-agent runs, in million tokens (append-only 5.54):
    stubbed 20 results later 11.31 with a prefix cache only and 5.55 with an ideal splice; stubbed
    on the next turn 5.56 and 5.56, because the suffix is still short.

    Attributes:
        after: how many results must follow the failed one.
    """

    after: int = Field(1, ge=1)

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit for each failure old enough, except the last one."""
        results = trajectory.tool_results
        due = {result.index for result in results[: max(0, len(results) - self.after)]}
        whole = {result.index: result for result in untouched(trajectory)}
        for failed in failures(trajectory)[:-1]:
            line = stub(f"failed, {failed.summary[:_SUMMARY_CHARS] or failed.kind}")
            result = whole.get(failed.index)
            if result and failed.index in due and len(line) < len(result.content):
                yield result.replace(line, reason="failed")
