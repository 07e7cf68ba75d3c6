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
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, TypeAlias, Union, get_origin, overload

from pydantic import BaseModel, ConfigDict, ValidationError

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, Protected
from leyline_agent.errors import PolicyError
from leyline_agent.message import Message, copy, digest
from leyline_agent.trajectory import Trajectory

__all__ = [
    "FunctionPolicy",
    "Pipeline",
    "Policy",
    "PolicyLike",
    "TransformPolicy",
    "as_policy",
    "available",
    "parse",
    "policy",
    "transform",
]

GROUP = "leyline.policies"

EditsOf: TypeAlias = Callable[[Trajectory], Iterable[Edit]]
MessagesOf: TypeAlias = Callable[[list[Message], int], Sequence[Message]]
PolicyLike: TypeAlias = Union["Policy", "type[Policy]", str, EditsOf, "Sequence[PolicyLike]"]
"""What `as_policy` takes: a policy, its class or text, a function, or a list of these."""


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
        """The edits with this policy's name, mode and permissions filled in.

        Raises:
            PolicyError: `edits` gave something else than edits.
        """
        edits = self.edits(trajectory)
        if not isinstance(edits, Iterable):
            raise PolicyError(
                f"policy {self.name} gave {edits!r}; it must yield Edit objects, or return a list "
                "of them (an empty one to edit nothing)"
            )
        return [self._signed(edit) for edit in edits]

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

    function: EditsOf
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

    The function gets copies it may change in place. Its output is diffed, message by message,
    into edits. `turn` counts assistant messages.
    """

    function: MessagesOf
    label: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.label or getattr(self.function, "__name__", "transform")

    def edits(self, trajectory: Trajectory) -> Iterable[Edit]:
        """The differences between the view and the function's output."""
        turn = sum(1 for message in trajectory.messages if message.get("role") == "assistant")
        after = self.function([copy(message) for message in trajectory.messages], turn)
        if not isinstance(after, Sequence) or not all(isinstance(m, Mapping) for m in after):
            raise PolicyError(
                f"transform {self.name} returned {after!r:.80}; it must return the list of messages"
            )
        return list(_differences(trajectory.messages, after))


def _differences(before: Sequence[Message], after: Sequence[Message]) -> Iterator[Edit]:
    """Small edits that turn one list of messages into the other.

    Equal messages are matched first. Among the rest, a message that only changed its text is
    matched with itself by its seat, so that no edit tears a call from its results.
    """
    for same, a0, a1, b0, b1 in _ranges(map(digest, before), map(digest, after)):
        if same:
            continue
        old, new = before[a0:a1], after[b0:b1]
        for seated, c0, c1, d0, d1 in _ranges(map(_seat, old), map(_seat, new)):
            if seated:
                for place, message in zip(range(a0 + c0, a0 + c1), new[d0:d1], strict=True):
                    yield Edit(place, place + 1, (message,))
            else:
                yield Edit(a0 + c0, a0 + c1, tuple(new[d0:d1]))


def _ranges(
    before: Iterable[Hashable], after: Iterable[Hashable]
) -> list[tuple[bool, int, int, int, int]]:
    """Whether they are equal, and the half-open ranges [a0, a1) and [b0, b1), in order."""
    matcher = difflib.SequenceMatcher(a=list(before), b=list(after), autojunk=False)
    return [(tag == "equal", a0, a1, b0, b1) for tag, a0, a1, b0, b1 in matcher.get_opcodes()]


def _seat(message: Message) -> tuple[str, str, tuple[str, ...]]:
    """What a message keeps when its text changes: role, the call it answers, the calls it makes."""
    calls = tuple(str(call.get("id")) for call in message.get("tool_calls") or ())
    return str(message.get("role")), str(message.get("tool_call_id")), calls


@overload
def policy(function: EditsOf, *, mode: Mode = ..., name: str = ...) -> FunctionPolicy: ...
@overload
def policy(
    function: None = None, *, mode: Mode = ..., name: str = ...
) -> Callable[[EditsOf], FunctionPolicy]: ...
def policy(
    function: EditsOf | None = None, *, mode: Mode = Mode.REPAIR, name: str = ""
) -> FunctionPolicy | Callable[[EditsOf], FunctionPolicy]:
    """Decorator: make a policy of a generator function `f(trajectory)`."""

    def make(f: EditsOf) -> FunctionPolicy:
        return FunctionPolicy(function=f, mode=mode, label=name)

    return make if function is None else make(function)


@overload
def transform(function: MessagesOf, *, mode: Mode = ..., name: str = ...) -> TransformPolicy: ...
@overload
def transform(
    function: None = None, *, mode: Mode = ..., name: str = ...
) -> Callable[[MessagesOf], TransformPolicy]: ...
def transform(
    function: MessagesOf | None = None, *, mode: Mode = Mode.REPAIR, name: str = ""
) -> TransformPolicy | Callable[[MessagesOf], TransformPolicy]:
    """Decorator: make a policy of `f(messages, turn) -> messages`."""

    def make(f: MessagesOf) -> TransformPolicy:
        return TransformPolicy(function=f, mode=mode, label=name)

    return make if function is None else make(function)


def available() -> dict[str, EntryPoint]:
    """Names of the installed policies (entry points `leyline.policies`), not yet imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def parse(spec: str) -> Policy:
    """A policy from text: "name", "name:key=value,key=value", several joined by "+".

    Lists are written a|b|c. A value cannot hold ",", "+" or, in a list, "|"; make such a policy in
    Python.

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
    loaded = _load(name.strip())
    options = dict(_option(pair, spec) for pair in rest.split(",") if pair.strip())
    if isinstance(loaded, type) and issubclass(loaded, Policy):
        return _configured(loaded, options, spec)
    if options:
        raise PolicyError(f"{spec!r}: policy {name!r} is made of a function and takes no options")
    return as_policy(loaded)


def _load(name: str) -> Any:
    found = available()
    if name not in found:
        raise PolicyError(
            f"no policy named {name!r}; {_hint(name, found)}installed: "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    try:
        loaded = found[name].load()
    except (ImportError, AttributeError) as error:
        raise PolicyError(
            f"policy {name!r} cannot be imported from {found[name].value!r}: {error}; repair or "
            "uninstall the package that offers it"
        ) from error
    if isinstance(loaded, Policy) or callable(loaded):
        return loaded
    raise PolicyError(f"entry point {name!r} ({found[name].value}) is {loaded!r}, not a policy")


def _option(pair: str, spec: str) -> tuple[str, str]:
    key, separator, value = pair.partition("=")
    if not separator or not key.strip():
        raise PolicyError(f"{spec!r}: {pair.strip()!r} is not key=value")
    return key.strip(), value.strip()


def _configured(kind: type[Policy], options: dict[str, str], spec: str) -> Policy:
    fields = kind.model_fields
    values: dict[str, Any] = {
        key: text.split("|") if key in fields and _is_list(fields[key].annotation) else text
        for key, text in options.items()
    }
    try:
        return kind(**values)
    except ValidationError as error:
        wrong = "; ".join(
            f"{key}: {problem['msg']}"
            for problem in error.errors()
            if (key := ".".join(map(str, problem["loc"])))
        )
        unknown = next((key for key in options if key not in fields), "")
        raise PolicyError(
            f"{spec!r}: {wrong or error}; {_hint(unknown, fields)}options: {', '.join(fields)}"
        ) from error


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) in (list, tuple, set, frozenset)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def as_policy(value: PolicyLike) -> Policy:
    """A policy from whatever users pass: a policy, a spec string, a function, a list of them.

    Raises:
        PolicyError: no policy can be made of it.
    """
    if isinstance(value, Policy):
        return value
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, type):
        if issubclass(value, Policy):
            return _configured(value, {}, value.__name__)
    elif isinstance(value, Sequence):
        parts = tuple(as_policy(part) for part in value)
        return parts[0] if len(parts) == 1 else Pipeline(policies=parts)
    elif callable(value):
        return FunctionPolicy(function=value)
    raise PolicyError(
        f"cannot make a policy of {value!r}; pass a Policy, 'name:key=value', a generator "
        "function, or a list of these"
    )
