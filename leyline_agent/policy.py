"""Policies: rules that look at a trajectory and yield edits.

Three ways to write one, all equal to the session:

* a subclass of `Policy` (a pydantic model: options are fields, checked and parsed for free);
* a generator function under `@policy`;
* a function `transform(messages, turn) -> messages` under `@transform`, whose output is diffed
  into edits.

A policy is pure and synchronous: the same trajectory always gives the same edits.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, Protected
from leyline_agent.errors import PolicyError
from leyline_agent.message import Message, digest
from leyline_agent.trajectory import Trajectory

__all__ = ["Pipeline", "Policy", "as_policy", "available", "parse", "policy", "transform"]

GROUP = "leyline.policies"

PolicyLike = "Policy | str | Callable[..., Any] | Sequence[Any]"


class Policy(BaseModel):
    """Base class of policies; subclasses implement `edits`.

    Attributes:
        mode: the mode of edits that name none.
        may_edit: protected messages ("system", "task") this policy's edits may touch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    may_edit: ClassVar[frozenset[Protected]] = frozenset()

    mode: Mode = Mode.REPAIR

    def edits(self, trajectory: Trajectory) -> Iterable[Edit]:
        """The edits this policy wants on the current view, in any order, not overlapping."""
        raise NotImplementedError(f"{type(self).__name__} must implement edits(trajectory)")

    @property
    def name(self) -> str:
        """The policy's name in receipts and journals; snake_case of the class by default."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    def propose(self, trajectory: Trajectory) -> list[Edit]:
        """The edits with this policy's name, mode and permissions filled in."""
        return [self._signed(edit) for edit in self.edits(trajectory)]

    def _signed(self, edit: Edit) -> Edit:
        if not isinstance(edit, Edit):
            raise PolicyError(f"policy {self.name} yielded {edit!r}; it must yield Edit objects")
        return Edit(
            start=edit.start,
            end=edit.end,
            replacement=tuple(edit.replacement),
            mode=edit.mode or self.mode,
            reason=edit.reason or self.name,
            policy=edit.policy or self.name,
            redact=edit.redact,
            may_edit=edit.may_edit | self.may_edit,
        )


class Pipeline(Policy):
    """Several policies on one view: each sees the view as it is, earlier ones have precedence.

    An edit that overlaps one already taken is left for a later turn, so a pipeline never yields
    an illegal batch out of legal parts.
    """

    policies: tuple[Policy, ...] = ()

    @property
    def name(self) -> str:
        """The parts' names joined by '+'."""
        return "+".join(part.name for part in self.policies) or "pipeline"

    def propose(self, trajectory: Trajectory) -> list[Edit]:
        """The parts' edits, without those that overlap an earlier part's."""
        taken: list[Edit] = []
        for part in self.policies:
            for edit in part.propose(trajectory):
                if not any(_overlap(edit, other) for other in taken):
                    taken.append(edit)
        return taken

    def edits(self, trajectory: Trajectory) -> Iterable[Edit]:
        """The same as `propose`."""
        return self.propose(trajectory)


def _overlap(left: Edit, right: Edit) -> bool:
    if (left.start, left.end) == (right.start, right.end):
        return True
    return left.start < right.end and right.start < left.end


class FunctionPolicy(Policy):
    """A policy made of one function `f(trajectory) -> edits`. Made by `@policy`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    function: Callable[[Trajectory], Iterable[Edit]]
    label: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.label or getattr(self.function, "__name__", "function")

    def edits(self, trajectory: Trajectory) -> Iterable[Edit]:
        """What the function yields."""
        return self.function(trajectory)


class TransformPolicy(Policy):
    """A policy made of `f(messages, turn) -> messages`. Made by `@transform`.

    The output is diffed, message by message, into edits. `turn` counts assistant messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    function: Callable[[list[Message], int], Sequence[Message]]
    label: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.label or getattr(self.function, "__name__", "transform")

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """The differences between the view and the function's output."""
        before = list(trajectory.messages)
        turn = sum(1 for m in before if m.get("role") == "assistant")
        after = list(self.function([dict(m) for m in before], turn))
        matcher = difflib.SequenceMatcher(
            a=[digest(m) for m in before], b=[digest(m) for m in after], autojunk=False
        )
        for tag, a0, a1, b0, b1 in matcher.get_opcodes():
            if tag == "replace" and a1 - a0 == b1 - b0:
                for offset in range(a1 - a0):
                    yield Edit(a0 + offset, a0 + offset + 1, (after[b0 + offset],))
            elif tag != "equal":
                yield Edit(a0, a1, tuple(after[b0:b1]))


def policy(
    function: Callable[[Trajectory], Iterable[Edit]] | None = None,
    *,
    mode: Mode = Mode.REPAIR,
    name: str = "",
) -> Any:
    """Decorator: make a policy of a generator function `f(trajectory)`."""

    def make(f: Callable[[Trajectory], Iterable[Edit]]) -> FunctionPolicy:
        return FunctionPolicy(function=f, mode=mode, label=name)

    return make if function is None else make(function)


def transform(
    function: Callable[[list[Message], int], Sequence[Message]] | None = None,
    *,
    mode: Mode = Mode.REPAIR,
    name: str = "",
) -> Any:
    """Decorator: make a policy of `f(messages, turn) -> messages`."""

    def make(f: Callable[[list[Message], int], Sequence[Message]]) -> TransformPolicy:
        return TransformPolicy(function=f, mode=mode, label=name)

    return make if function is None else make(function)


def available() -> dict[str, Any]:
    """Names of the installed policies (entry points `leyline.policies`), not yet imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def parse(spec: str) -> Policy:
    """A policy from text: "name", "name:key=value,key=value", several joined by "+".

    Raises:
        PolicyError: no such policy, no such option, or a value the option does not take.
    """
    parts = [part.strip() for part in spec.split("+")]
    if not all(parts):
        raise PolicyError(f"empty policy in {spec!r}; write name:key=value,key=value")
    policies = [_parse_one(part) for part in parts]
    return policies[0] if len(policies) == 1 else Pipeline(policies=tuple(policies))


def _parse_one(spec: str) -> Policy:
    name, _, rest = spec.partition(":")
    found = available()
    if name not in found:
        close = difflib.get_close_matches(name, found, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise PolicyError(
            f"no policy named {name!r}; {hint}installed: {', '.join(sorted(found)) or 'none'}"
        )
    options: dict[str, Any] = {}
    for pair in filter(None, (p.strip() for p in rest.split(","))):
        key, separator, value = pair.partition("=")
        if not separator:
            raise PolicyError(f"{spec!r}: {pair!r} is not key=value")
        options[key.strip()] = _value(value.strip())
    kind = found[name].load()
    try:
        made = kind(**options)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        known = ", ".join(sorted(kind.model_fields))
        raise PolicyError(f"{spec!r}: {problems} (options: {known})") from error
    if not isinstance(made, Policy):
        raise PolicyError(f"entry point {name!r} is {kind!r}, not a Policy")
    return made


def _value(text: str) -> Any:
    """Lists are written a|b|c; everything else is left to pydantic."""
    return text.split("|") if "|" in text else text


def as_policy(value: Any) -> Policy:
    """A policy from whatever users pass: a policy, a spec string, a function, a list of them."""
    if isinstance(value, Policy):
        return value
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, type) and issubclass(value, Policy):
        return value()
    if isinstance(value, list | tuple):
        parts = tuple(as_policy(part) for part in value)
        return parts[0] if len(parts) == 1 else Pipeline(policies=parts)
    if callable(value):
        return FunctionPolicy(function=value)
    raise PolicyError(
        f"cannot make a policy of {value!r}; pass a Policy, 'name:key=value', a generator "
        "function, or a list of these"
    )
