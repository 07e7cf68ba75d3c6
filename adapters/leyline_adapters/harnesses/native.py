"""Native turns: a framework's own messages over the sans-IO seam, through its codec.

    harness = Harness("langchain", codec, policies, adapter, journal, options)
    turn = harness.begin(natives, tools, key=thread_id)
    response = turn.run(send=lambda turn: call(turn.messages), told=as_completion, made=as_native)

A framework whose hook only edits, and does not make the call, takes `turn.messages` and says
`turn.answered(completion)` when it learns of the reply, or `turn.answered(None)` at once.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from leyline_adapters.harnesses.codec import Codec, Completion, completion, missing, restored
from leyline_agent.adapter import Adapter, CallingAdapter, Request, check_adapter
from leyline_agent.errors import AdapterError, CallRefused, LeylineError
from leyline_agent.policy import PolicyLike, as_policy
from leyline_agent.settings import SessionOptions, Settings
from leyline_agent.turn import Turn
from leyline_agent.warning import LeylineWarning, warn
from leyline_agent.wrapping.pool import SessionPool
from leyline_agent.wrapping.refusal import check_may_pass
from leyline_agent.wrapping.scope import TurnExchange, open_turn, pass_by
from leyline_agent.wrapping.settings import Wrapped, journal_folder

__all__ = ["Codec", "Completion", "Harness", "NativeTurn", "completion", "missing", "restored"]

logger = logging.getLogger("leyline.harnesses")

N = TypeVar("N")
R = TypeVar("R")

MAX_CONVERSATIONS = 256
"""Conversations that are kept apart at once; the one unused longest is forgotten first."""


class NativeTurn(Generic[N]):
    """One call of a framework's model. Made by `Harness.begin`.

    Attributes:
        messages: what to send.
        tools: specifications, in chat form, of tools that the session adds to the framework's.
        extra: what the adapter adds to the request or changes in it, by name: `extra_body`.
        leyline: the turn behind it; None where the call goes out unedited.
    """

    def __init__(
        self, codec: Codec[N], natives: Sequence[N], request: Request, around: TurnExchange
    ) -> None:
        self.messages = list(natives)
        self.tools: list[Mapping[str, Any]] = []
        self.extra: dict[str, Any] = {}
        self.leyline: Turn | None = around.turn
        self._codec, self._natives, self._given, self._around = codec, natives, request, around
        if self.leyline:
            self._show(self.leyline)

    def _show(self, turn: Turn) -> None:
        request, given = turn.request, self._given
        self.messages = restored(self._codec, self._natives, given["messages"], request["messages"])
        own = {id(tool) for tool in given.get("tools") or ()}
        self.tools = [tool for tool in request.get("tools") or () if id(tool) not in own]
        self.extra = {key: value for key, value in request.items() if given.get(key) is not value}
        self.extra = {k: v for k, v in self.extra.items() if k not in ("messages", "tools")}

    def advance(self, answer: Completion | None) -> bool:
        """Whether the reply was not meant for the framework; `messages` then go out next."""
        turn = self.leyline
        if turn is None or not turn.is_open:
            return False
        try:
            if not turn.advance(answer):
                return False
            self._show(turn)
        except Exception as error:  # The framework gets the reply it has.
            logger.exception("turn %s cannot go on", turn.commit.version)
            self.failed(error)
            return False
        return True

    def answered(self, answer: Completion | None) -> None:
        """The model has replied; with None only the request is kept."""
        self._around.answered(answer)

    def failed(self, error: BaseException | str) -> None:
        """The call failed. Of no effect once answered."""
        self._around.failed(error)

    def run(
        self,
        send: Callable[[NativeTurn[N]], R],
        told: Callable[[R], Completion],
        made: Callable[[Completion], R],
        amended: Callable[[Completion, R], R] | None = None,
    ) -> R:
        """Make the call, and again while its reply is for the session, and finish the turn.

        Args:
            send: calls the framework's model with `messages`, `tools` and `extra` of the turn.
            told: the framework's response as a chat completion.
            made: the other way round, where the adapter makes the calls itself.
            amended: a copy of a response with the reply of a completion, where recalls were in
                it; `made` without the framework's response when left out.
        """
        with self._failing():
            while True:
                answer: Completion | None = None
                if caller := self.caller:
                    answer = caller.complete(self._request)
                    response = made(answer)
                else:
                    response = send(self)
                    answer = self.read(told, response)
                if not self.advance(answer):
                    break
        self.answered(answer)
        return self._delivered(answer, response, amended or (lambda told, _: made(told)))

    async def arun(
        self,
        send: Callable[[NativeTurn[N]], Awaitable[R]],
        told: Callable[[R], Completion],
        made: Callable[[Completion], R],
        amended: Callable[[Completion, R], R] | None = None,
    ) -> R:
        """`run` for a framework that awaits its model."""
        with self._failing():
            while True:
                answer: Completion | None = None
                if caller := self.caller:
                    answer = await caller.acomplete(self._request)
                    response = made(answer)
                else:
                    response = await send(self)
                    answer = self.read(told, response)
                if not self.advance(answer):
                    break
        self.answered(answer)
        return self._delivered(answer, response, amended or (lambda told, _: made(told)))

    @property
    def _request(self) -> dict[str, Any]:
        return self.leyline.request if self.leyline else self._given

    def _delivered(
        self, answer: Completion | None, response: R, amended: Callable[[Completion, R], R]
    ) -> R:
        if self.leyline is None or answer is None:
            return response
        try:
            final = self.leyline.delivered(answer)
            return response if final is answer else amended(final, response)
        except Exception:  # The framework gets the reply as it came.
            logger.exception("a %s cannot be cleaned of recalls", type(response).__name__)
            return response

    @property
    def caller(self) -> CallingAdapter | None:
        """The adapter, where it makes the calls itself."""
        return self._around.caller

    def read(self, told: Callable[[R], Completion], response: R) -> Completion | None:
        """A response as a chat completion; None where it cannot be read, which costs no reply."""
        try:
            return told(response)
        except Exception:
            logger.exception("a %s cannot be read as a reply", type(response).__name__)
            return None

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.failed(error)
            raise


class Harness(Generic[N]):
    """The sessions of one place in a framework where models are called. Thread-safe.

    Args:
        name: the framework's, the first part of its sessions' names.
        codec: how its messages read.
        policies, adapter: as for `Session`.
        journal: a folder; each session writes `<session id>.jsonl` in it.
        options: of the sessions.
        makes_calls: whether `NativeTurn.run` makes them; only then may an adapter take them over.

    Attributes:
        leyline: its last `sessions`, and in `bypassed` the calls that went out unedited.

    Raises:
        LeylineError: an option does not fit.
    """

    def __init__(
        self,
        name: str,
        codec: Codec[N],
        policies: PolicyLike | None,
        adapter: Adapter | str | None,
        journal: str | os.PathLike[str] | None,
        options: SessionOptions,
        *,
        makes_calls: bool = True,
    ) -> None:
        check_adapter(adapter)
        Settings.of(options)
        if options.get("recall") and not makes_calls:
            raise LeylineError(
                f"recall: the hook of {name} only edits calls and does not make them, so the "
                "model's recalls could not be answered; leave recall out"
            )
        policy = as_policy([] if policies is None else policies)
        self.leyline = Wrapped(name, policy, adapter, journal_folder(journal), options)
        self._codec = codec
        self._makes_calls = makes_calls
        self._lock = threading.Lock()
        self._pools: dict[str | None, SessionPool] = {}

    def begin(
        self,
        natives: Sequence[N],
        tools: Sequence[Mapping[str, Any]] | None = None,
        key: str | None = None,
        **request: Any,
    ) -> NativeTurn[N]:
        """Open a turn; where none can be opened the turn has `natives` as they are.

        Args:
            natives: the framework's messages.
            tools: its tools, in chat form.
            key: the framework's own name of the conversation; conversations without one, and
                those inside one, are told apart by history.
            request: further keyword arguments for an adapter that makes calls.

        Raises:
            AdapterError: the adapter makes calls itself, and here it cannot.
        """
        caller, turn = self.caller, None
        whole: Request = {**request, **({"tools": tools} if tools else {})}
        try:
            whole["messages"] = [self._codec.read(native) for native in natives]
            turn = open_turn(self._pool(key), self.leyline.bypassed, whole)
            made = NativeTurn(self._codec, natives, whole, TurnExchange(whole, caller, turn))
            if made.extra and not self._makes_calls:
                self._tell(made.extra)
            return made
        except (CallRefused, LeylineWarning) as error:
            TurnExchange(whole, None, turn).failed(error)
            raise
        except Exception as error:  # A message that the codec cannot read or write.
            TurnExchange(whole, None, turn).failed(error)
            if caller and "messages" not in whole:
                raise
            logger.exception("a model call cannot be edited")
            check_may_pass(self.leyline.policy.redacts, f"{type(error).__name__}: {error}")
            pass_by(self.leyline.bypassed, f"{type(error).__name__}: {error}")
            return NativeTurn(self._codec, natives, whole, TurnExchange(whole, caller, None))

    def _tell(self, extra: Mapping[str, Any]) -> None:
        """Say once that the engine learns of no edits: messages alone reach it."""
        if not self.leyline.told:
            self.leyline.told = True
            warn(
                f"the hook of {self.leyline.name} passes on messages alone, no {', '.join(extra)}: "
                "the engine is not told of edits"
            )

    @property
    def caller(self) -> CallingAdapter | None:
        """The adapter, where it makes the calls itself.

        Raises:
            AdapterError: it does, and here it cannot.
        """
        adapter = self.leyline.adapter
        if not isinstance(adapter, CallingAdapter):
            return None
        if not self._makes_calls:
            raise AdapterError(
                f"adapter {adapter.name!r} makes the model's calls itself, and the hook of "
                f"{self.leyline.name} only edits them; leave adapter out and point the "
                "framework's model at `leyline proxy` or `leyline serve`"
            )
        return adapter

    def _pool(self, key: str | None) -> SessionPool:
        with self._lock:
            pool = self._pools.pop(key, None)
            pool = pool or self.leyline.pool(max_sessions=MAX_CONVERSATIONS, anew=True)
            self._pools[key] = pool
            if len(self._pools) > MAX_CONVERSATIONS:
                del self._pools[next(iter(self._pools))]
            return pool
