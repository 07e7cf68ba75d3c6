"""Adapters: how a session's commits reach an engine.

An adapter is sans-IO: it adds to a request what its engine needs to know (`prepare`) and reads
back what the engine did (`receipt`). The call itself goes where the user's client sends it.
Only an adapter whose engine lives in this process takes the call over (`CallingAdapter`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Receipt

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from leyline_agent.policy import Policy
    from leyline_agent.settings import Settings

__all__ = [
    "Adapter",
    "CallingAdapter",
    "Capabilities",
    "Commit",
    "DelegatingAdapter",
    "Request",
    "WireEdit",
    "adapter_kind",
    "as_adapter",
    "check_adapter",
    "missing_members",
]

GROUP = "leyline.adapters"
_MEMBERS = ("name", "capabilities", "prepare", "receipt")
_CALLING = ("complete", "stream", "acomplete", "astream", "apply", "edit_ahead")

Request = dict[str, Any]
"""Keyword arguments of an OpenAI chat completion: messages, tools, extra_body, ..."""


class Capabilities(BaseModel):
    """What an engine can do with a directive.

    Attributes:
        modes: the modes it carries out; a mode it lacks is strengthened to one it has.
        repair: what REPAIR covers: nothing, the boundary window, or the full set.
        edit_ahead: edits can be applied while a tool runs.
        directives: token-space directives are accepted.
        receipts: responses carry a receipt; otherwise one is made of `usage`.
        edits_itself: it edits what it is sent, by a policy that was left to it.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    modes: frozenset[Mode] = frozenset()
    repair: Literal["none", "boundary", "full"] = "none"
    edit_ahead: bool = False
    directives: bool = False
    receipts: bool = False
    edits_itself: bool = False


class WireEdit(BaseModel):
    """One edit on the wire: messages [a, b) of the previous view became `count` messages."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    messages: tuple[int, int]
    count: int = Field(ge=0)
    mode: Mode = Mode.REPAIR
    reason: str = ""
    policy: str = ""
    redact: bool = False


class Commit(BaseModel):
    """The `leyline` field of a request: which edits turned the base version's view into this.

    Attributes:
        session: the session's id.
        base_version: the version the edits apply to; 0 for a session's first request.
        version: the version this commit makes when the engine acknowledges it.
        view_digest: `message.view_digest` of the request's messages.
        base_len: number of leading messages of the base version's view (its prompt and reply) that
            the edits start from: all of them, or fewer where the harness rewrote what follows.
        edits: half-open indices in the previous view, sorted, not overlapping.
    """

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    session: str = Field(min_length=1, max_length=256)
    base_version: int = Field(0, ge=0)
    version: int = Field(1, ge=1)
    view_digest: str = ""
    base_len: int = Field(0, ge=0)
    edits: tuple[WireEdit, ...] = ()


@runtime_checkable
class Adapter(Protocol):
    """What a session needs of an engine."""

    @property
    def name(self) -> str:
        """A short name for journals and tables."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do."""
        ...

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request to send: `request` plus what the engine needs to know of `commit`."""
        ...

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt in a response (or in a stream's last chunk); None when there is none."""
        ...


@runtime_checkable
class CallingAdapter(Adapter, Protocol):
    """An adapter that makes the call itself: its engine lives in this process or behind HTTP."""

    def complete(self, request: Request) -> dict[str, Any]:
        """An OpenAI chat completion as a dictionary."""
        ...

    def stream(self, request: Request) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed chat completion."""
        ...

    async def acomplete(self, request: Request) -> dict[str, Any]:
        """`complete`, without blocking the event loop."""
        ...

    def astream(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        """`stream`, without blocking the event loop."""
        ...

    def apply(self, session: str, base_version: int, directives: list[Directive]) -> Receipt:
        """Apply token-space directives to a session, atomically, in original coordinates."""
        ...

    def edit_ahead(self, request: Request, commit: Commit) -> Receipt:
        """Apply a commit's edits now, while a tool runs; the next request finds them done."""
        ...


@runtime_checkable
class DelegatingAdapter(Adapter, Protocol):
    """An adapter that can leave policies to its provider."""

    def delegated(self, policy: Policy, settings: Settings) -> tuple[Adapter, Policy]:
        """The adapter for one session, and the policies that are left to be run here."""
        ...


def as_adapter(value: Adapter | str | None) -> Adapter:
    """An adapter from what users pass: an adapter, the name of an installed one, None for "openai".

    Raises:
        AdapterError: no adapter of that name is installed or can be imported, or the value is none.
    """
    point = _found(value)
    if point is None:
        return value  # type: ignore[return-value]
    return _loaded(point)()


def adapter_kind(name: str) -> Callable[..., Adapter]:
    """What makes the adapters of that name: a class, as a rule.

    Raises:
        AdapterError: no adapter of that name is installed or can be imported.
    """
    point = _found(name)
    assert point is not None
    return _loaded(point)


def check_adapter(value: Adapter | str | None) -> None:
    """That `as_adapter` knows the value; nothing is imported.

    Raises:
        AdapterError: no adapter of that name is installed, or the value is none.
    """
    _found(value)


def missing_members(value: object, *, calling: bool = False) -> list[str]:
    """What an object lacks to be an `Adapter`; with `calling`, a `CallingAdapter`."""
    return [name for name in _MEMBERS + _CALLING * calling if not hasattr(value, name)]


def _loaded(point: EntryPoint) -> Callable[..., Adapter]:
    try:
        kind: Callable[..., Adapter] = point.load()
    except ImportError as error:
        raise AdapterError(
            f"adapter {point.name!r} cannot be imported from {point.value!r}: {error}; install "
            "what it needs (the bundled engine: pip install 'leyline-agent[serve]'; llama.cpp: "
            "'leyline-agent[llama-cpp]')"
        ) from error
    return kind


def _found(value: Adapter | str | None) -> EntryPoint | None:
    """Where an adapter comes from; None when it is there already."""
    if isinstance(value, type):
        raise AdapterError(f"{value.__name__} is a class; pass an adapter made of it")
    if isinstance(value, Adapter):
        return None
    if value is not None and not isinstance(value, str):
        lacking = missing_members(value)
        if len(lacking) < len(_MEMBERS):
            raise AdapterError(
                f"{type(value).__name__} is no adapter: it has no {', '.join(lacking)} "
                "(leyline_agent.adapter.Adapter says what each is)"
            )
        raise AdapterError(f"{value!r} is no adapter; pass an Adapter or the name of one")
    from importlib.metadata import entry_points  # A third of what importing this package costs.

    name = value or "openai"
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name not in installed:
        raise AdapterError(
            f"no adapter named {name!r}; installed: {', '.join(sorted(installed)) or 'none'}"
        )
    return installed[name]
