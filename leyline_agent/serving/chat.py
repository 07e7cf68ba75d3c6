"""The chat service: OpenAI requests in, OpenAI chunks and receipts out, over one engine.

What the HTTP server and the in-process adapter share. A request is a generator of steps that waits
for its runs to be computed (`serving.scheduler`): requests that come at once are computed together.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from leyline_agent.errors import InvalidRequest
from leyline_agent.message import Message
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat_turn import ChatTurn, Piece
from leyline_agent.serving.generate import Generation
from leyline_agent.serving.host import Host
from leyline_agent.serving.prompt import Prompt
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.run import Need, Run
from leyline_agent.serving.scheduler import Job, Scheduler, Steps
from leyline_agent.serving.sessions import EngineSession, SessionStore
from leyline_agent.serving.turns import Turn, plan_chat
from leyline_agent.serving.wire import ChatRequest
from leyline_agent.serving.work import Cached

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ChatService", "head"]


class ChatService:
    """Chat completions with sessions, edits and receipts. Thread-safe.

    Args:
        engine: the engine; this service makes room in it by giving up idle sessions.
        name: the model's name in answers.
        tokenizer: the model's.
        chat: a renderer of that tokenizer, to share what it remembers; made when None.
    """

    def __init__(
        self, engine: Host, name: str, tokenizer: Any, chat: ChatRenderer | None = None
    ) -> None:
        self.engine = engine
        self.name = name
        self.chat = chat or ChatRenderer(tokenizer)
        self.sessions = SessionStore()
        self.scheduler = Scheduler(engine)
        self._edited: Cached | None = None
        engine.reclaimers.append(self._reclaim)

    def complete(self, request: ChatRequest, tenant: str = "") -> dict[str, Any]:
        """A chat completion as a dictionary.

        Raises:
            EngineError: the prompt cannot be rendered or does not fit.
        """
        answer = self.scheduler.run(self.job(request, tenant, stream=False))
        assert answer is not None
        return answer

    def stream(self, request: ChatRequest, tenant: str = "") -> Iterator[dict[str, Any]]:
        """The chunks of a streamed completion; the last one carries the receipt.

        Closing the iterator early abandons the turn: nothing is committed.
        """
        return self.scheduler.stream(self.job(request, tenant, stream=True))

    def job(
        self, request: ChatRequest, tenant: str = "", *, stream: bool
    ) -> Job[dict[str, Any] | None]:
        """A request for the scheduler: it sends the chunks of a stream, or returns a completion.

        Cancelled, it abandons the turn. Requests of one session are served one after the other.
        """
        session = request.leyline.session if request.leyline else None
        return Job(lambda: self._steps(request, tenant, stream), self.key(tenant, session))

    def key(self, tenant: str, session_id: str | None) -> Hashable | None:
        """What jobs that must not overlap have in common: the tenant's session, if any."""
        return None if session_id is None else (tenant, session_id)

    def recorded(
        self, request: ChatRequest, reply: Message, tenant: str = "", *, score: bool = False
    ) -> tuple[Receipt, Tensor | None]:
        """Run a turn whose reply is known: the prompt is computed, the reply taken as generated.

        Returns:
            The receipt, and with `score` the float32 logits [reply tokens, vocab] that predicted
            each of the reply's tokens (None where no model runs).
        """

        def steps() -> Steps[tuple[Receipt, Tensor | None]]:
            turn = yield from self._begun(request, tenant)
            try:
                run, tokens = turn.run, turn.tokens_of(reply)
                if tokens:
                    yield from self.engine.when_room(lambda: run.append(tokens, score=score))
                    yield from run.computing()
                turn.generated.tokens.extend(tokens)
                turn.reply = reply
                return turn.commit(), run.scored() if tokens else None
            finally:
                self.engine.abandon(turn.run)

        session = request.leyline.session if request.leyline else None
        return self.scheduler.run(Job(steps, self.key(tenant, session)))

    def check_ids(self, ids: Iterable[int]) -> None:
        """Raise InvalidRequest for a token id the model does not have."""
        size = self.engine.vocab_size
        if size is None:
            return
        wrong = next((id for id in ids if not 0 <= id < size), None)
        if wrong is not None:
            raise InvalidRequest(f"token id {wrong} is outside the model's vocabulary of {size}")

    def session(self, tenant: str, session_id: str) -> EngineSession:
        """The tenant's session, made if need be; the least recently used one may go for it."""
        with self.exclusive():
            return self.sessions.open(tenant, session_id)

    def drop(self, tenant: str) -> None:
        """Give up the sessions and the KV of a tenant who comes no more."""
        with self.exclusive():
            for session in self.sessions:
                if session.tenant == tenant:
                    self.sessions.drop(tenant, session.id)
            self.engine.drop(tenant)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the engine."""
        return self.engine.exclusive()

    def running(self, plan: Callable[[], Turn]) -> Steps[tuple[Turn, Run]]:
        """A planned turn and its run, the prompt computed; the caller abandons or finishes it."""

        def begin() -> tuple[Turn, Run]:
            started = time.perf_counter()
            turn = plan()
            run = self.open(turn.prompt)
            # What a user waits for: rendering and lowering included, the queue not.
            run.seconds = time.perf_counter() - started
            return turn, run

        turn, run = yield from self.engine.when_room(begin)
        try:
            yield from run.computing()
        except BaseException:
            self.engine.abandon(run)
            raise
        return turn, run

    def open(self, prompt: Prompt) -> Run:
        """`Host.open`; what the prompt edits is given up last to make room. Holds no lock."""
        self._edited = prompt.previous
        try:
            return self.engine.open(prompt)
        finally:
            self._edited = None

    def _steps(
        self, request: ChatRequest, tenant: str, stream: bool
    ) -> Steps[dict[str, Any] | None]:
        turn = yield from self._begun(request, tenant)
        try:
            if stream:
                yield from self._chunks(turn)
                return None
            for item in turn.pieces():
                if isinstance(item, Need):
                    yield item
            choice = {
                "index": 0,
                "message": turn.reply,
                "finish_reason": turn.finish_reason,
                "logprobs": turn.logprobs(),
            }
            answer = head("chat.completion", self.name)
            receipt = turn.commit()
            return {
                **answer,
                "choices": [choice],
                "usage": turn.usage(),
                "leyline": _wire(receipt),
            }
        finally:
            self.engine.abandon(turn.run)

    def _begun(self, request: ChatRequest, tenant: str) -> Steps[ChatTurn]:
        """A turn whose prompt is computed; the caller commits it, and abandons its run anyhow."""
        commit = request.leyline
        session = self.session(tenant, commit.session) if commit else None

        def plan() -> Turn:
            tools = request.shown_tools
            return plan_chat(self.chat, request.messages, tools, tenant, session, commit)

        planned, run = yield from self.running(plan)
        alternatives = (request.top_logprobs or 0) if request.logprobs else None
        generation = Generation(
            run, self.chat, request, limit=request.limit, top_logprobs=alternatives
        )
        return ChatTurn(self.engine, self.chat, request, session, planned, run, generation)

    def _chunks(self, turn: ChatTurn) -> Iterator[dict[str, Any] | Need]:
        """The reply as OpenAI streams it; usage comes where it was asked for, as it asks for it."""
        start = head("chat.completion.chunk", self.name)
        asked = turn.request.include_usage
        if asked:
            start["usage"] = None

        def chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
            return {
                **start,
                "choices": [{"index": 0, "delta": delta, "finish_reason": None} | more],
            }

        yield chunk({"role": "assistant", "content": ""})
        for item in turn.pieces():
            if isinstance(item, Need):
                yield item
            else:
                yield chunk(_delta(item, turn), **turn.new_logprobs())
        receipt = _wire(turn.commit())
        last = chunk({}, finish_reason=turn.finish_reason, **turn.new_logprobs())
        if not asked:
            yield {**last, "leyline": receipt}
            return
        yield last
        yield {**start, "choices": [], "usage": turn.usage(), "leyline": receipt}

    def _reclaim(self, tokens: int) -> None:
        for _ in self.sessions.give_up(self._edited):
            if self.engine.freed(tokens):
                return


def head(kind: str, model: str, prefix: str = "chatcmpl") -> dict[str, Any]:
    """What every OpenAI completion and chunk begins with."""
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
    }


def _delta(piece: Piece, turn: ChatTurn) -> dict[str, Any]:
    """A piece of the reply as OpenAI's stream has it."""
    if isinstance(piece, str):
        return {"content": piece}
    return {"tool_calls": [{"index": turn.reply["tool_calls"].index(piece), **piece}]}


def _wire(receipt: Receipt) -> dict[str, Any]:
    return receipt.model_dump(mode="json")
