"""Policies: rules that look at a trajectory and yield edits.

Three ways to write one, all equal to the session:

* a subclass of `Policy` (a pydantic model: options are fields, checked and parsed for free);
* a generator function under `@policy`;
* a function `transform(messages, turn) -> messages` under `@transform`, whose output is diffed
  into edits.

A policy is pure and synchronous: the same trajectory always gives the same edits.
"""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeAlias, Union, Unpack, overload

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from leyline_agent import options
from leyline_agent.arrangement import arranged
from leyline_agent.difference import differences
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit, Protected, as_protected
from leyline_agent.errors import PolicyError
from leyline_agent.finding import available, find, split_name
from leyline_agent.message import Message, copy
from leyline_agent.question import Ask
from leyline_agent.redaction import in_force, redacts
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

EditsOf: TypeAlias = Callable[[Trajectory], Iterable[Edit | Ask]]
MessagesOf: TypeAlias = Callable[[list[Message], int], Sequence[Message]]
PolicyLike: TypeAlias = Union["Policy", "type[Policy]", str, EditsOf, "Sequence[PolicyLike]"]
"""What `as_policy` takes: a policy, its class or text, a function, or a list of these."""


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _check_takes(function: Any, name: str, form: str, count: int) -> None:
    """That a rule can be called with `count` arguments and gives its result at once.

    Raises:
        PolicyError: it cannot.
    """
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PolicyError(f"{name} is asynchronous; a policy is not: write {form}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # Built in, or no function: told when it is called.
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        given = ", ".join(signature.parameters)
        raise PolicyError(f"{name}({given}) takes other arguments; write {form}") from error


class Policy(BaseModel):
    """Base class of policies; subclasses implement `edits`.

    As text it is what `parse` reads, "name:option=value", without options at their defaults;
    "name(option=value)" where a value cannot be written so.

    Attributes:
        mode: the mode of edits that name none.
        may_edit: protected messages ("system", "task") this policy's edits may touch.

    Raises:
        PolicyError: made with an option it does not have, or a value that the option does not
            take; or, where the class is defined, `edits` cannot be called with a trajectory, or an
            option has no type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    may_edit: ClassVar[frozenset[Protected]] = frozenset()

    mode: Mode = Mode.REPAIR

    def __init_subclass__(cls, **kwargs: Unpack[ConfigDict]) -> None:
        options.check_typed(cls)  # Before pydantic looks, whose words are about pydantic.
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "edits" in vars(cls):
            bound = vars(cls)["edits"].__get__(object(), cls)
            _check_takes(bound, f"{cls.__name__}.edits", "def edits(self, trajectory)", 1)

    @model_validator(mode="wrap")
    @classmethod
    def _told_plainly(cls, data: Any, handler: ModelWrapValidatorHandler[Policy]) -> Policy:
        try:
            return handler(data)
        except ValidationError as error:
            name = _snake(cls.__name__)
            raise PolicyError(options.explain(name, cls.model_fields, error)) from error

    @abstractmethod
    def edits(self, trajectory: Trajectory) -> Iterable[Edit | Ask]:
        """The edits this policy wants on the current view, in any order, not overlapping.

        And what it wants a model to be asked first; see `Ask`.
        """

    @property
    def name(self) -> str:
        """The policy's name in receipts and journals; snake_case of the class by default."""
        return _snake(type(self).__name__)

    def __str__(self) -> str:
        given = self._options()
        if not given:
            return self.name
        text = ",".join(f"{key}={value}" for key, value in options.written(given).items())
        if options.is_one_part(text) and self._is_made_by(text):
            return f"{self.name}:{text}"
        return f"{self.name}({options.shown(given)})"

    def _is_made_by(self, text: str) -> bool:
        kind = type(self)
        try:
            return kind(**options.read(options.pairs(text, text), kind.model_fields)) == self
        except PolicyError:
            return False

    def _options(self) -> dict[str, Any]:
        """The options that are not at their defaults."""
        return {key: getattr(self, key) for key in self.model_dump(exclude_defaults=True)}

    @property
    def redacts(self) -> bool:
        """Whether a call is better not made than made without this policy's edits; False.

        Override it in a policy of yours that takes out what must not be sent.
        """
        return False

    def propose(self, trajectory: Trajectory) -> list[Edit]:
        """The edits with this policy's name, mode and permissions filled in.

        Raises:
            PolicyError: `edits` gave something else than edits and questions.
        """
        return [want for want in self.wants(trajectory) if isinstance(want, Edit)]

    def wants(self, trajectory: Trajectory) -> list[Edit | Ask]:
        """The edits and the questions, with this policy's name filled in. As `propose`."""
        wanted = self.edits(trajectory)
        if not isinstance(wanted, Iterable):
            raise PolicyError(
                f"policy {self.name} gave {wanted!r}; it must yield Edit objects, or return a list "
                "of them (an empty one to edit nothing)"
            )
        return [self._signed(want) for want in wanted]

    def _signed(self, edit: Edit | Ask) -> Edit | Ask:
        if isinstance(edit, Ask):
            return replace(edit, policy=edit.policy or self.name)
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
            may_edit=edit.may_edit | as_protected(self.may_edit),
        )


class Pipeline(Policy):
    """Several policies on one view: each sees the view as it is, earlier ones have precedence.

    An edit that overlaps one already taken is left for a later turn, so a pipeline never yields
    an illegal batch out of legal parts. Redactions do not wait: those of one message are one edit.
    """

    policies: tuple[Policy, ...] = ()

    @property
    def name(self) -> str:
        """The parts' names joined by '+'."""
        return "+".join(part.name for part in self.policies) or "pipeline"

    @property
    def redacts(self) -> bool:
        """Whether one of the parts does."""
        return any(part.redacts for part in self.policies)

    def wants(self, trajectory: Trajectory) -> list[Edit | Ask]:
        """The parts' edits, without those that overlap an earlier part's, and their questions."""
        found = [part.wants(trajectory) for part in self.policies]
        wanted = arranged(found)
        pairs = zip(self.policies, found, strict=True)
        redactors = [part.wants for part, wants in pairs if redacts(wants)]
        return in_force(wanted, trajectory, redactors) if redactors else wanted

    def edits(self, trajectory: Trajectory) -> Iterable[Edit | Ask]:
        """The same as `wants`."""
        return self.wants(trajectory)

    def __str__(self) -> str:
        return "+".join(map(str, self.policies)) or self.name


class _OfFunction(Policy):
    """A policy made of one function; named like it, unless it has a label."""

    function: Callable[..., Any]
    label: str = ""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.label or getattr(self.function, "__name__", "function")

    def _options(self) -> dict[str, Any]:
        return {} if self.mode is Mode.REPAIR else {"mode": self.mode}


class FunctionPolicy(_OfFunction):
    """A policy made of one function `f(trajectory) -> edits`. Made by `@policy`."""

    function: EditsOf

    def model_post_init(self, context: Any) -> None:
        """Look at the function's parameters."""
        form = f"def {self.name}(trajectory), or put f(messages, turn) under @transform"
        _check_takes(self.function, self.name, form, 1)

    def edits(self, trajectory: Trajectory) -> Iterable[Edit | Ask]:
        """What the function yields."""
        return self.function(trajectory)


class TransformPolicy(_OfFunction):
    """A policy made of `f(messages, turn) -> messages`. Made by `@transform`.

    The function gets copies it may change in place. Its output is diffed, message by message,
    into edits. `turn` counts assistant messages.
    """

    function: MessagesOf

    def model_post_init(self, context: Any) -> None:
        """Look at the function's parameters."""
        _check_takes(self.function, self.name, f"def {self.name}(messages, turn)", 2)

    def edits(self, trajectory: Trajectory) -> Iterable[Edit]:
        """The differences between the view and the function's output."""
        turn = sum(1 for message in trajectory.messages if message.get("role") == "assistant")
        after = self.function([copy(message) for message in trajectory.messages], turn)
        if not isinstance(after, Sequence) or not all(isinstance(m, Mapping) for m in after):
            raise PolicyError(
                f"transform {self.name} returned {after!r:.80}; it must return the list of messages"
            )
        return list(differences(trajectory.messages, after))


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


def parse(spec: str) -> Policy:
    """A policy from text: "name", "name:key=value,key=value", several joined by "+".

    The name is an installed policy's, "module.Name" or "file.py:Name" (`finding`; the latter two
    run code: never parse text that comes with a trajectory, a recording, a journal or a request).
    Lists are written a|b|c; a policy inside a policy stands in brackets, policy=(a:n=1+b). A value
    cannot hold ",", "+" or, in a list, "|" outside of brackets; make such a policy in Python.

    Raises:
        PolicyError: no such policy, no such option, or a value the option does not take.
    """
    parts = [part.strip() for part in options.split(spec, "+")]
    if not all(parts):
        raise PolicyError(f"empty policy in {spec!r}; write name:key=value,key=value")
    policies = [_parse_one(part) for part in parts]
    return policies[0] if len(policies) == 1 else Pipeline(policies=tuple(policies))


def _parse_one(spec: str) -> Policy:
    if spec.startswith("(") and spec.endswith(")"):
        return parse(spec[1:-1])
    name, rest = split_name(spec)
    loaded = find(name)
    given = options.pairs(rest, spec)
    if isinstance(loaded, type) and issubclass(loaded, Policy):
        return _made(loaded, options.read(given, loaded.model_fields))
    if given:
        raise PolicyError(f"{spec!r}: policy {name!r} is made of a function and takes no options")
    if isinstance(loaded, type):
        raise PolicyError(f"{name} is a class, but no policy; derive it from leyline.Policy")
    return as_policy(loaded)


def _made(kind: type[Policy], given: Mapping[str, Any]) -> Policy:
    if inspect.isabstract(kind):
        raise PolicyError(
            f"{kind.__name__} has no rule; give it `def edits(self, trajectory)` that yields Edit "
            "objects, or put a function f(messages, turn) -> messages under @transform"
        )
    return kind(**given)


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
            return _made(value, {})
    elif isinstance(value, Sequence):
        parts = tuple(as_policy(part) for part in value)
        return parts[0] if len(parts) == 1 else Pipeline(policies=parts)
    elif callable(value):
        return FunctionPolicy(function=value)
    raise PolicyError(
        f"cannot make a policy of {value!r}; pass a Policy, 'name:key=value', a generator "
        "function, or a list of these"
    )
