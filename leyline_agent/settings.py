"""The options of a session, declared once for everything that makes sessions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypedDict

from leyline_agent.directive import Mode, as_mode
from leyline_agent.message import Message
from leyline_agent.options import hint
from leyline_agent.question import AtOnce, Fulfil
from leyline_agent.recall.options import RecallLike, as_recall
from leyline_agent.timing.timing import Timing, as_timing
from leyline_agent.trajectory import Observations

if TYPE_CHECKING:
    from leyline_agent.observer import Observer

__all__ = ["Pinned", "ResumeOptions", "SessionOptions", "Settings"]

Pinned = Callable[[Message], bool]


class ResumeOptions(TypedDict, total=False):
    """What a session may be given anew when it is resumed.

    Attributes:
        pinned: says of a message whether no edit may touch it; asked once a message.
        policy_deadline: seconds a policy may take before it is logged with its time; 0.1.
        observers: told of every turn; what they raise never costs one.
        timing: when edits are made: "now" with the call they are proposed for, "auto" when it costs
            least, or a `Timing`; "now".
        fulfil: asks a model what policies want to know; litellm, in a thread, where left out.
        recall: keep what policies cut from tool results, and let the model see it again: True, a
            file for the archive, or a `Recall`; False.
    """

    pinned: Pinned | None
    policy_deadline: float
    observers: Sequence[Observer]
    timing: Timing | str | None
    fulfil: Fulfil | AtOnce | None
    recall: RecallLike | None


class SessionOptions(ResumeOptions, total=False):
    """Options of `Session`, and so of `wrap` and of everything else that makes sessions.

    Attributes:
        mode_floor: the weakest mode any edit is carried out in.
        observations: "user" for plain-text harnesses, as in `Trajectory`.
    """

    mode_floor: Mode | str | None
    observations: Observations


@dataclass(frozen=True)
class Settings:
    """`SessionOptions`, checked, with their defaults. Made by `Settings.of`."""

    mode_floor: Mode | str | None = None
    observations: Observations = "tool"
    pinned: Pinned | None = None
    policy_deadline: float = 0.1
    observers: Sequence[Observer] = ()
    timing: Timing | str | None = None
    fulfil: Fulfil | AtOnce | None = None
    recall: RecallLike | None = None

    def __post_init__(self) -> None:
        if self.mode_floor is not None:
            object.__setattr__(self, "mode_floor", as_mode(self.mode_floor))
        object.__setattr__(self, "observers", tuple(self.observers))
        object.__setattr__(self, "timing", as_timing(self.timing))
        object.__setattr__(self, "recall", as_recall(self.recall))

    @classmethod
    def of(cls, options: SessionOptions | ResumeOptions) -> Settings:
        """The settings that options make.

        Raises:
            TypeError: an option does not exist.
            LeylineError: an option does not take the value.
        """
        known = [field.name for field in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(
                    f"no option {name!r}; {hint(name, ['policies', 'adapter', 'journal', *known])}"
                    f"a session has the options {', '.join(known)}"
                )
        return cls(**options)

    @property
    def floor(self) -> Mode | None:
        """The weakest mode that is allowed."""
        return None if self.mode_floor is None else as_mode(self.mode_floor)
