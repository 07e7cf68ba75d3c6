"""Stub the outputs of failed calls, keeping one line of what failed."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from leyline_agent.edit import Edit
from leyline_agent.policy import Policy
from leyline_agent.signals import failures
from leyline_agent.trajectory import Trajectory
from leyline_policies.stubbed import Gone, stubbed

__all__ = ["DropFailedCalls"]

_SUMMARY_CHARS = 120


class DropFailedCalls(Policy):
    """Replace the output of a failed call, `after` results later, by one line of what failed.

    The `keep` most recent failures stay whole: they may be the problem being worked on. The call
    stays too, so that the line says what not to try again. What counts as a failure, and what says
    so, is `leyline_agent.signals.failures`.

    Source: ours. Simulated prefill of 183 recorded mini-swe-agent runs, in million tokens
    (append-only 5.54): stubbed 20 results later 11.31 with a prefix cache only and 5.55 with an
    ideal splice; stubbed on the next turn 5.56 and 5.56, because the suffix is still short. So edit
    at once on a prefix cache, late and in batches (`after`, `polling`) where the engine splices.

    Attributes:
        after: how many results must follow the failed one.
        keep: how many failures at the end stay whole.
        polling: edit only once this many are due, so that edits come in batches.
    """

    after: int = Field(1, ge=1)
    keep: int = Field(1, ge=0)
    polling: int = Field(1, ge=1)

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit for each failure old enough, or none while they are too few."""
        due = list(stubbed(trajectory, self._lessons(trajectory)))
        if len(due) >= self.polling:
            yield from due

    def _lessons(self, trajectory: Trajectory) -> Iterator[Gone]:
        results = trajectory.tool_results
        old = {result.index: result for result in results[: max(0, len(results) - self.after)]}
        found = failures(trajectory)
        for failed in found[: max(0, len(found) - self.keep)]:
            if failed.index in old:
                lesson = failed.summary[:_SUMMARY_CHARS] or failed.kind
                yield Gone(old[failed.index], f"failed, {lesson}", "failed")
