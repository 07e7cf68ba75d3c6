"""Refusals: calls that are better not made than made unedited."""

from __future__ import annotations

from leyline_agent.errors import CallRefused

__all__ = ["check_may_pass"]


def check_may_pass(redacts: bool, reason: str) -> None:
    """That a call no turn can be opened for may go out unedited.

    Args:
        redacts: whether a policy of its session does; see `Policy.redacts`.
        reason: why there is no turn.

    Raises:
        CallRefused: a policy redacts: what it would have taken out must not be sent.
    """
    if redacts:
        raise CallRefused(
            f"a model call was not made: it could not be edited ({reason}), and a policy redacts. "
            "Mend what is told there, or take that policy away"
        )
