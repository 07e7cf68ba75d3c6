"""tau-bench: a list of task runs whose `traj` is OpenAI chat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from leyline_agent.readers.chat import looks_like_messages, normalise
from leyline_agent.readers.recording import Recording

__all__ = ["NAME", "matches", "recordings", "solved"]

NAME = "tau-bench"


def matches(record: Any) -> bool:
    """An object with `traj` and `reward`."""
    return (
        isinstance(record, dict) and "reward" in record and looks_like_messages(record.get("traj"))
    )


def recordings(record: Mapping[str, Any]) -> Iterator[Recording]:
    """One run."""
    yield Recording(
        id=f"task{record.get('task_id')}-trial{record.get('trial', 0)}",
        format=NAME,
        messages=tuple(normalise(record["traj"], "traj")),
        resolved=solved(record["reward"]),
        meta={"reward": record["reward"]},
    )


def solved(reward: Any) -> bool | None:
    """Whether a reward is full marks; None when it is no number."""
    if isinstance(reward, bool) or not isinstance(reward, int | float):
        return None
    return abs(reward - 1) < 1e-6
