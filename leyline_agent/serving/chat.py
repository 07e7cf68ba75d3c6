"""The chat service: OpenAI requests in, OpenAI chunks and receipts out, over one engine.

What the HTTP server and the in-process adapter share. A request is a generator of small steps; the
engine is held for each step, never while its consumer is slow.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

from torch import Tensor

from leyline_agent.errors import InvalidRequest
from leyline_agent.message import Message
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat_turn import ChatTurn, Piece
from leyline_agent.serving.engine import Engine, Prompt, Run
from leyline_agent.serving.generate import Generation
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.sessions import EngineSession, SessionStore
from leyline_agent.serving.turns import Turn, plan_chat
from leyline_agent.serving.wire import ChatRequest

__all__ = ["ChatService", "Step", "head"]

Step = dict[str, Any] | None
"""What a step of a request gives: a body to send now, or None."""


class ChatService:
    """Chat completions with sessions, edits and receipts. Thread-safe.

    Args:
        engine: the engine; this service makes room in it by giving up idle sessions.
        name: the model's name in answers.
        tokenizer: the model's.
        chat: a renderer of that tokenizer, to share what it remembers; made when None.
    """

    def __init__(
        self, engine: Engine, name: str, tokenizer: Any, chat: ChatRenderer | None = None
    ) -> None:
        self.engine = engine
        self.name = name
        self.chat = chat or ChatRenderer(tokenizer)
        self.sessions = SessionStore()
        self._one_at_a_time = threading.Lock()  # whole completions; streams may interleave
        self._edited: CachedSequence | None = None
        engine.reclaimers.append(self._reclaim)

    def complete(self, request: ChatRequest, tenant: str = "") -> dict[str, Any]:
        """A chat completion as a dictionary.

        Raises:
            EngineError: the prompt cannot be rendered or does not fit.
        """
        return self.drain(self.steps(request, tenant, stream=False))

    def stream(self, request: ChatRequest, tenant: str = "") -> Iterator[dict[str, Any]]:
        """The chunks of a streamed completion; the last one carries the receipt.

        Closing the iterator early abandons the turn: nothing is committed.
        """
        with closing(self.steps(request, tenant, stream=True)) as steps:
            yield from filter(None, steps)

    def steps(
        self, request: ChatRequest, tenant: str = "", *, stream: bool
    ) -> Generator[Step, None, None]:
        """A request in steps of one chunk of prefill or one token each.

        Yields what there is to send, or None: the chunks of a stream, else one completion at the
        end. Closing it abandons the turn.
        """
        with self._turn(request, tenant) as turn:
            yield from self.prefill(turn.run)
            if stream:
                yield from self._chunks(turn)
                return
            for _ in turn.pieces():
                yield None
            choice = {
                "index": 0,
                "message": turn.reply,
                "finish_reason": turn.finish_reason,
                "logprobs": turn.logprobs(),
            }
            answer = head("chat.completion", self.name)
            receipt = turn.commit()
            yield {**answer, "choices": [choice], "usage": turn.usage(), "leyline": _wire(receipt)}

    def drain(self, steps: Iterator[Step]) -> dict[str, Any]:
        """Take a request's steps at one go, no other drained request between; its last body."""
        with self._one_at_a_time:
            [answer] = deque(steps, maxlen=1)
        assert answer is not None
        return answer

    def recorded(
        self, request: ChatRequest, reply: Message, tenant: str = "", *, score: bool = False
    ) -> tuple[Receipt, Tensor | None]:
        """Run a turn whose reply is known: the prompt is computed, the reply taken as generated.

        Returns:
            The receipt, and with `score` the float32 logits [reply tokens, vocab] that predicted
            each of the reply's tokens (None where no model runs).
        """
        with self._one_at_a_time, self._turn(request, tenant) as turn:
            for _ in self.prefill(turn.run):
                pass
            tokens = turn.tokens_of(reply)
            logits = None
            with self.exclusive():
                if score and tokens:
                    logits = turn.run.score(tokens)
                elif tokens:
                    turn.run.extend(tokens)
            turn.generated.tokens.extend(tokens)
            turn.reply = reply
            return turn.commit(), logits

    def check_ids(self, ids: Iterable[int]) -> None:
        """Raise InvalidRequest for a token id the model does not have."""
        if self.engine.model is None:
            return
        network: Any = self.engine.model.model
        size = network.get_input_embeddings().num_embeddings
        wrong = next((id for id in ids if not 0 <= id < size), None)
        if wrong is not None:
            raise InvalidRequest(f"token id {wrong} is outside the model's vocabulary of {size}")

    def session(self, tenant: str, session_id: str) -> EngineSession:
        """The tenant's session, made if need be; the least recently used one may go for it."""
        with self.exclusive():
            return self.sessions.open(tenant, session_id)

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the engine."""
        return self.engine.exclusive()

    @contextmanager
    def running(self, plan: Callable[[], Turn]) -> Iterator[tuple[Turn, Run]]:
        """A planned turn and its run, to be prefilled; abandoned at the end unless finished."""
        with self.exclusive():
            started = time.perf_counter()
            turn = plan()
            run = self.open(turn.prompt)
            # What a user waits for: rendering and lowering included, the queue not.
            run.seconds = time.perf_counter() - started
        try:
            yield turn, run
        finally:
            self.engine.abandon(run)

    def open(self, prompt: Prompt) -> Run:
        """`Engine.open`; what the prompt edits is given up last to make room. Holds no lock."""
        self._edited = prompt.previous
        try:
            return self.engine.open(prompt)
        finally:
            self._edited = None

    def prefill(self, run: Run) -> Iterator[None]:
        """Compute a run's prompt, a chunk a step."""
        while len(run.pending):
            with self.exclusive():
                run.prefill()
            yield None

    @contextmanager
    def _turn(self, request: ChatRequest, tenant: str) -> Iterator[ChatTurn]:
        """A turn whose prompt is to be prefilled."""
        commit = request.leyline
        session = self.session(tenant, commit.session) if commit else None

        def plan() -> Turn:
            tools = request.shown_tools
            return plan_chat(self.chat, request.messages, tools, tenant, session, commit)

        with self.running(plan) as (planned, run):
            alternatives = (request.top_logprobs or 0) if request.logprobs else None
            generation = Generation(
                run, self.chat, request, limit=request.limit, top_logprobs=alternatives
            )
            yield ChatTurn(self.engine, self.chat, request, session, planned, run, generation)

    def _chunks(self, turn: ChatTurn) -> Iterator[Step]:
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
        for pieces in turn.pieces():
            for piece in pieces:
                yield chunk(_delta(piece, turn), **turn.new_logprobs())
            if not pieces:
                yield None
        receipt = _wire(turn.commit())
        last = chunk({}, finish_reason=turn.finish_reason, **turn.new_logprobs())
        if not asked:
            yield {**last, "leyline": receipt}
            return
        yield last
        yield {**start, "choices": [], "usage": turn.usage(), "leyline": receipt}

    def _reclaim(self, tokens: int) -> None:
        for _ in self.sessions.give_up(self._edited):
            self.engine.forest.evict(tokens - self.engine.pool.num_free)
            if self.engine.pool.num_free >= tokens:
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
