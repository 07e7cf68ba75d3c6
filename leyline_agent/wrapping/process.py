"""Instrumentation of a whole process: every call of a library is a turn, without a decorator.

handle = leyline.instrument_litellm(policies="clear_tool_uses")
...  # any code that calls litellm
handle.uninstrument()
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Unpack

from leyline_agent.adapter import Adapter, Request, check_adapter
from leyline_agent.errors import LeylineError
from leyline_agent.policy import PolicyLike, as_policy
from leyline_agent.session import Session
from leyline_agent.settings import SessionOptions, Settings
from leyline_agent.wrapping.exchange import Exchange
from leyline_agent.wrapping.instrument import install
from leyline_agent.wrapping.pool import SessionPool
from leyline_agent.wrapping.scope import LoopScope, cover, uncover
from leyline_agent.wrapping.settings import Wrapped, journal_folder

__all__ = [
    "Instrumentation",
    "instrument_anthropic",
    "instrument_litellm",
    "instrument_openai",
]


class Instrumentation:
    """A library all of whose calls are turns, until it is taken back; also a context manager.

    Made by `instrument_litellm`, `instrument_openai` and `instrument_anthropic`. Conversations are
    told apart by their history. Calls inside a function under `leyline.wrap` are that function's.

    Attributes:
        name: the library's.
        reached: whether a call was taken up.
    """

    def __init__(self, library: str, wrapped: Wrapped, pool: SessionPool) -> None:
        self.name = library
        self.reached = False
        self._wrapped = wrapped
        self._pool = pool

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The last sessions (64), the newest last."""
        return tuple(self._wrapped.sessions)

    @property
    def bypassed(self) -> tuple[str, ...]:
        """The last calls that went out unedited, each with the reason."""
        return tuple(self._wrapped.bypassed)

    @property
    def session(self) -> Session | None:
        """The session used last; with several threads or tasks, by any of them."""
        return self._pool.last

    def exchange(self, request: Request) -> Exchange:
        """Take up a call."""
        self.reached = True
        scope = LoopScope(self._wrapped.adapter, self._pool, self._wrapped.bypassed)
        return scope.exchange(request)

    def uninstrument(self) -> None:
        """Let calls pass as they are from now on; turns that wait for their answer are finished."""
        uncover(self.name, self)

    def __enter__(self) -> Instrumentation:
        return self

    def __exit__(self, *_: object) -> None:
        self.uninstrument()

    def __repr__(self) -> str:
        return f"Instrumentation({self.name!r}, sessions={len(self._wrapped.sessions)})"


def instrument_litellm(
    *,
    policies: PolicyLike | None = None,
    adapter: Adapter | str | None = None,
    journal: str | os.PathLike[str] | None = None,
    **options: Unpack[SessionOptions],
) -> Instrumentation:
    """Put policies around every call of this process through litellm, the router's included.

    Args:
        policies: as for `Session`.
        adapter: an adapter, or the name of an installed one, made on the first call; None for
            plain providers.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of its sessions; see `SessionOptions`.

    Raises:
        LeylineError: the library is not installed, or instrumented already, or an option does not
            fit.
    """
    return _instrumented("litellm", policies, adapter, journal, options)


def instrument_openai(
    *,
    policies: PolicyLike | None = None,
    adapter: Adapter | str | None = None,
    journal: str | os.PathLike[str] | None = None,
    **options: Unpack[SessionOptions],
) -> Instrumentation:
    """`instrument_litellm` for OpenAI clients: `chat.completions.create` and `parse`.

    Calls that litellm makes through such a client are taken up as well, unless litellm is
    instrumented itself.
    """
    return _instrumented("openai", policies, adapter, journal, options)


def instrument_anthropic(
    *,
    policies: PolicyLike | None = None,
    adapter: Adapter | str | None = None,
    journal: str | os.PathLike[str] | None = None,
    **options: Unpack[SessionOptions],
) -> Instrumentation:
    """`instrument_litellm` for Anthropic clients: `messages.create`, `stream` and `parse`.

    Those of `client.beta` as well. The adapter "anthropic" knows what that API can do.
    """
    return _instrumented("anthropic", policies, adapter, journal, options)


def _instrumented(
    library: str,
    policies: PolicyLike | None,
    adapter: Adapter | str | None,
    journal: str | os.PathLike[str] | None,
    options: SessionOptions,
) -> Instrumentation:
    if find_spec(library) is None:
        raise LeylineError(f"{library} is not installed; pip install {library}")
    check_adapter(adapter)
    Settings.of(options)
    wrapped = Wrapped(
        name=library,
        policy=as_policy([] if policies is None else policies),
        given_adapter=adapter,
        journal=journal_folder(journal),
        options=options,
    )
    made = Instrumentation(library, wrapped, wrapped.pool(anew=True))
    if not cover(library, made):
        raise LeylineError(
            f"{library} is instrumented already; call uninstrument() on what "
            f"instrument_{library}() gave then, or give it all policies at once"
        )
    install()
    return made
