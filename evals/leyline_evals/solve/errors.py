"""What ends an episode early, and what is wrong with a run as a whole.

EvalError           a run that cannot be made, resumed or reported as asked
└── CorruptRun      a run folder that holds what no run writes
EpisodeEnded        raised by `EpisodeModel`; a driver cleans up, grades if it can, or lets it by
├── LimitReached    the episode's own limit; graded as the repository then stands
├── ModelFailed     the model or its engine gave no answer: nothing is counted
└── Interrupted     the sitting ends now: nothing is kept, the episode is run again
"""

from __future__ import annotations

from typing import Literal

from leyline_agent.errors import LeylineError

__all__ = [
    "CorruptRun",
    "EpisodeEnded",
    "EvalError",
    "Interrupted",
    "LimitName",
    "LimitReached",
    "ModelFailed",
]

LimitName = Literal["steps", "seconds", "tokens", "context", "repeats"]


class EvalError(LeylineError):
    """A run that cannot be made, resumed or reported as asked."""


class CorruptRun(EvalError):
    """A run folder that holds what no run writes."""


class EpisodeEnded(LeylineError):
    """An episode's model answers no more."""


class LimitReached(EpisodeEnded):
    """A limit of the episode.

    Attributes:
        limit: which of `Limits`; "context" is the model's own.
    """

    def __init__(self, limit: LimitName, detail: str) -> None:
        super().__init__(detail)
        self.limit = limit


class ModelFailed(EpisodeEnded):
    """The model or its engine gave no answer, several times over."""


class Interrupted(EpisodeEnded):
    """The sitting ends now; the episode is run again in the next one."""
