"""The decorator: policies around an agent loop, or around the function that calls its model.

    @leyline.wrap(policies="truncate_older_than:n=2,max_chars=200")
    def run_agent(task):
        ...  # calls litellm or an OpenAI client as before

Around a loop, every call that it makes through litellm or a client of OpenAI or Anthropic is a
turn. Around a function with a parameter `messages`, every call of the function is.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any, Literal, TypeVar, Unpack, get_args, overload

from leyline_agent.adapter import Adapter, check_adapter
from leyline_agent.errors import LeylineError
from leyline_agent.policy import PolicyLike, as_policy
from leyline_agent.settings import SessionOptions, Settings
from leyline_agent.wrapping.calls import around_call, messages_parameter
from leyline_agent.wrapping.loops import around_loop
from leyline_agent.wrapping.settings import Wrapped, journal_folder

__all__ = ["Around", "wrap"]

Around = Literal["auto", "loop", "call"]
F = TypeVar("F", bound=Callable[..., Any])


@overload
def wrap(function: F) -> F: ...
@overload
def wrap(
    *,
    policies: PolicyLike | None = ...,
    adapter: Adapter | str | None = ...,
    journal: str | os.PathLike[str] | None = ...,
    around: Around = ...,
    **options: Unpack[SessionOptions],
) -> Callable[[F], F]: ...
def wrap(
    function: Any = None,
    *,
    policies: PolicyLike | None = None,
    adapter: Adapter | str | None = None,
    journal: str | os.PathLike[str] | None = None,
    around: Around = "auto",
    **options: Unpack[SessionOptions],
) -> Any:
    """Put policies around an agent loop or a model-call function, sync, async or generator.

    The function's attribute `leyline` holds its last `sessions` and, in `bypassed`, the calls that
    went out unedited and why.

    Args:
        function: what to wrap; left out where options are given.
        policies: as for `Session`.
        adapter: an adapter, or the name of an installed one, made on the first call; None for
            plain OpenAI-compatible providers.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        around: "loop": model calls the function makes through litellm or a client of OpenAI or
            Anthropic go through sessions, new ones for each call of the function. "call": the
            function is a model call; it gets the view in place of its messages, and its calls are
            told apart by history. "auto": "call" if it has a parameter `messages`, else "loop".
        options: of its sessions; see `SessionOptions`.

    Raises:
        LeylineError: what is given cannot be wrapped, or an option does not fit.
    """
    check_adapter(adapter)
    wrapped_with: dict[str, Any] = {
        "policy": as_policy([] if policies is None else policies),
        "given_adapter": adapter,
        "journal": journal_folder(journal),
        "options": options,
    }
    Settings.of(options)  # What does not fit shall be told here, not in the first call.

    def decorate(given: Any) -> Any:
        return _wrapped(given, around, wrapped_with)

    return decorate if function is None else decorate(function)


def _wrapped(given: Any, around: Around, settings: dict[str, Any]) -> Any:
    if around not in get_args(Around):
        raise LeylineError(f"around={around!r}: it is 'loop', 'call' or 'auto'")
    if isinstance(given, staticmethod | classmethod):
        return type(given)(_wrapped(given.__func__, around, settings))
    if not callable(given) or inspect.isclass(given):
        raise LeylineError(f"cannot wrap {given!r}; wrap a function or a method")
    wrapped = Wrapped(name=getattr(given, "__name__", type(given).__name__), **settings)
    parameter = _parameter(given, around)
    made = around_call(given, wrapped, parameter) if parameter else around_loop(given, wrapped)
    made.leyline = wrapped  # type: ignore[attr-defined]
    return made


def _parameter(function: Callable[..., Any], around: Around) -> str | None:
    """The parameter with the messages of a model-call function; None for a loop."""
    if around == "loop":
        return None
    parameter = messages_parameter(function, first=around == "call")
    if parameter is None and around == "call":
        raise LeylineError(f"{function!r} has no parameter that could take messages")
    return parameter
