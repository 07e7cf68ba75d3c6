"""The chat service: OpenAI requests in, OpenAI chunks and receipts out, over one engine.

What the HTTP server and the in-process adapter share. One request runs at a time; others wait.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from leyline_agent.directive import Mode
from leyline_agent.lowering import common_prefix
from leyline_agent.message import Message
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.engine import Engine, Run
from leyline_agent.serving.generate import Generated, Generation
from leyline_agent.serving.kv.sequence import CachedSequence
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.scrub import quoting_messages, scrub
from leyline_agent.serving.sessions import EngineSession, SessionStore, Version
from leyline_agent.serving.tool_calls import ToolCallParser
from leyline_agent.serving.turns import Turn, plan_chat
from leyline_agent.serving.wire import ChatRequest

__all__ = ["ChatService"]

logger = logging.getLogger("leyline.serving")


class ChatService:
    """Chat completions with sessions, edits and receipts.

    Args:
        engine: the engine; this service makes room in it by giving up idle sessions.
        name: the model's name in answers.
        tokenizer: the model's.
    """

    def __init__(self, engine: Engine, name: str, tokenizer: Any) -> None:
        self.engine = engine
        self.name = name
        self.chat = ChatRenderer(tokenizer)
        self.sessions = SessionStore()
        self._serving: EngineSession | None = None
        engine.reclaimers.append(self._reclaim)

    def complete(self, request: ChatRequest, tenant: str = "") -> dict[str, Any]:
        """A chat completion as a dictionary.

        Raises:
            EngineError: the prompt cannot be rendered or does not fit.
        """
        with self._turn(request, tenant) as turn:
            for _ in turn.pieces():
                pass
            reply = turn.reply
            receipt = turn.commit(reply)
            return {
                **self._head("chat.completion"),
                "choices": [
                    {
                        "index": 0,
                        "message": reply,
                        "finish_reason": turn.finish_reason(reply),
                        "logprobs": turn.logprobs(),
                    }
                ],
                "usage": turn.usage(),
                "leyline": _wire(receipt),
            }

    def recorded(
        self, request: ChatRequest, reply: Message, tenant: str = "", *, score: bool = False
    ) -> tuple[Receipt, Tensor | None]:
        """Run a turn whose reply is known: the prompt is computed, the reply taken as generated.

        Returns:
            The receipt, and with `score` the float32 logits [reply tokens, vocab] that predicted
            each of the reply's tokens (None where no model runs).
        """
        with self._turn(request, tenant) as turn:
            tokens = turn.tokens_of(reply)
            logits = None
            if score and tokens:
                logits = turn.run.score(tokens)
            elif tokens:
                turn.run.extend(tokens)
            turn.generated.tokens.extend(tokens)
            return turn.commit(reply), logits

    def stream(self, request: ChatRequest, tenant: str = "") -> Iterator[dict[str, Any]]:
        """The chunks of a streamed completion; the last one carries usage and the receipt.

        Closing the iterator early abandons the turn: nothing is committed.
        """
        head = self._head("chat.completion.chunk")
        with self._turn(request, tenant) as turn:
            yield {**head, "choices": [_choice({"role": "assistant", "content": ""})]}
            for piece in turn.pieces():
                yield {**head, "choices": [_choice(_delta(piece, turn.reply))]}
            reply = turn.reply
            receipt = turn.commit(reply)
            finish = _choice({}, turn.finish_reason(reply))
            yield {
                **head,
                "choices": [finish],
                "usage": turn.usage(),
                "leyline": _wire(receipt),
            }

    @contextmanager
    def _turn(self, request: ChatRequest, tenant: str) -> Iterator[ActiveTurn]:
        """A computed prompt, ready to generate. The engine is held until the block ends."""
        with self.exclusive():
            session = None
            if request.leyline is not None:
                session = self.sessions.open(tenant, request.leyline.session)
            self._serving = session
            started = time.perf_counter()
            planned = plan_chat(
                self.chat, request.messages, request.shown_tools, tenant, session, request.leyline
            )
            run = self.engine.start(planned.prompt)
            # What a user waits for: rendering and lowering included, the queue not.
            waited = {"ttft_ms": (time.perf_counter() - started) * 1e3}
            run.receipt = run.receipt.model_copy(update=waited)
            try:
                generation = Generation(
                    run,
                    self.chat,
                    request,
                    limit=request.limit,
                    top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
                )
                yield ActiveTurn(self, request, session, planned, run, generation)
            finally:
                run.abandon()
                self._serving = None

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the engine."""
        with self.engine.lock:
            yield

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
        }

    def _reclaim(self, tokens: int) -> None:
        for _ in self.sessions.give_up(self._serving):
            self.engine.forest.evict(tokens - self.engine.pool.num_free)
            if self.engine.pool.num_free >= tokens:
                return


@dataclass
class ActiveTurn:
    """One request between prefill and commit."""

    service: ChatService
    request: ChatRequest
    session: EngineSession | None
    planned: Turn
    run: Run
    generation: Generation
    reply: Message = field(default_factory=lambda: {"role": "assistant", "content": None})

    @property
    def generated(self) -> Generated:
        """What has been generated so far."""
        return self.generation.result

    def pieces(self) -> Iterator[str | dict[str, Any]]:
        """Generate: text as it becomes certain, and tool calls when they are whole.

        `reply` holds all of it at the end.
        """
        parser = ToolCallParser(self.request.shown_tools)
        for text in self.generation:
            yield from map(self._said, parser.feed(text))
        yield from map(self._said, parser.finish())

    def _said(self, piece: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(piece, str):
            self.reply["content"] = (self.reply["content"] or "") + piece
        else:
            self.reply.setdefault("tool_calls", []).append(piece)
        return piece

    def tokens_of(self, reply: Message) -> list[int]:
        """The tokens a known reply would have been generated as."""
        messages = [*self.request.messages, reply]
        replies = self.session.replies if self.session else None
        whole = self.service.chat.render(messages, self.request.shown_tools, replies)
        prompt = self.planned.prompt.tokens
        behind = whole[common_prefix(prompt, whole) :]
        stops = self.service.chat.stop_ids
        return behind[: next((i for i, t in enumerate(behind) if t in stops), len(behind))]

    def finish_reason(self, reply: Message) -> str:
        """OpenAI's finish reason."""
        return "tool_calls" if reply.get("tool_calls") else self.generated.finish_reason

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage; cached tokens are those the engine did not compute."""
        receipt = self.run.receipt
        generated = len(self.generated.tokens)
        return {
            "prompt_tokens": receipt.prompt,
            "completion_tokens": generated,
            "total_tokens": receipt.prompt + generated,
            "prompt_tokens_details": {"cached_tokens": receipt.reused},
        }

    def logprobs(self) -> dict[str, Any] | None:
        """OpenAI's logprobs, where asked for."""
        if self.generated.logprobs is None:
            return None
        return {"content": self.generated.logprobs}

    def commit(self, reply: Message) -> Receipt:
        """Acknowledge: the reply and the sequence become the session's new version."""
        receipt = self._receipt()
        commit = self.request.leyline
        if self.session is None or commit is None:
            return receipt
        if not self.generation.cut:
            self.session.replies.keep(reply, self.generated.tokens)
        sequence = self.run.finish()
        receipt = self._redacted(receipt, self.session, sequence)
        self.session.add(
            Version(
                number=commit.version,
                base=commit.base_version,
                digest=commit.view_digest,
                messages=[*self.request.messages, reply],
                sequence=sequence,
                prompt_len=receipt.prompt,
                receipt=receipt,
            )
        )
        return receipt

    def _receipt(self) -> Receipt:
        commit = self.request.leyline
        known: dict[str, Any] = {"reason": self.planned.reason, "detail": self.planned.detail}
        if commit is not None:
            known["session"] = commit.session
            known["base_version"] = commit.base_version
            known["version"] = commit.version
        return self.run.receipt.model_copy(update=known)

    def _redacted(
        self, receipt: Receipt, session: EngineSession, sequence: CachedSequence
    ) -> Receipt:
        """Scrub what the commit's redactions removed, and tell what could not be."""
        commit = self.request.leyline
        if commit is None or not any(edit.redact for edit in commit.edits):
            return receipt
        retained = scrub(self.service.engine, session, sequence)
        quoted = quoting_messages(self.planned.removed, self.request.messages)
        told = {"retained": retained, "quoted_in": quoted, "reason": Reason.REDACTED}
        edits = tuple(
            edit.model_copy(update=told) if edit.mode_used is Mode.FORGET else edit
            for edit in receipt.edits
        )
        return receipt.model_copy(update={"edits": edits})


def _delta(piece: str | dict[str, Any], reply: Message) -> dict[str, Any]:
    """A piece of the reply as OpenAI's stream has it."""
    if isinstance(piece, str):
        return {"content": piece}
    return {"tool_calls": [{"index": len(reply["tool_calls"]) - 1, **piece}]}


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _wire(receipt: Receipt) -> dict[str, Any]:
    return receipt.model_dump(mode="json")
