"""The options of a session, declared once for everything that makes sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from leyline_agent.directive import Mode, as_mode
from leyline_agent.environment import heed_environment
from leyline_agent.errors import LeylineError
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
        self._check()
        object.__setattr__(self, "observers", tuple(self.observers))
        object.__setattr__(self, "timing", as_timing(self.timing))
        object.__setattr__(self, "recall", as_recall(self.recall))

    def _check(self) -> None:
        """That each option is of its kind.

        Raises:
            LeylineError: one is not.
        """
        deadline, fulfil = self.policy_deadline, self.fulfil
        is_number = isinstance(deadline, int | float) and not isinstance(deadline, bool)
        told = {
            "pinned": (
                self.pinned is None or callable(self.pinned),
                "a function that says of a message whether no edit may touch it",
            ),
            "policy_deadline": (is_number and deadline >= 0, "a number of seconds, 0 or more"),
            "observations": (self.observations in get_args(Observations), "'tool' or 'user'"),
            "fulfil": (
                fulfil is None or callable(fulfil) or isinstance(fulfil, AtOnce),
                "a function that asks a model, or at_once(function)",
            ),
            "observers": (
                _are_observers(self.observers),
                "a list of objects with the methods begun, committed and failed",
            ),
        }
        for name, (fits, allowed) in told.items():
            if not fits:
                raise LeylineError(f"{name}={getattr(self, name)!r}: it is {allowed}")

    @classmethod
    def of(cls, options: SessionOptions | ResumeOptions) -> Settings:
        """The settings that options make.

        Raises:
            TypeError: an option does not exist.
            LeylineError: an option does not take the value, or the environment asks for what is
                not installed or not known.
        """
        heed_environment()
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


def _are_observers(value: Any) -> bool:
    methods = ("begun", "committed", "failed")
    return isinstance(value, Iterable) and all(
        callable(getattr(one, method, None)) for one in tuple(value) for method in methods
    )
