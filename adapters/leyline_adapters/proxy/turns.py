"""Turns: a call to complete a chat, from the view that is sent to the reply that is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from leyline_adapters.proxy.asgi import Send, respond
from leyline_adapters.proxy.body import Body, NotAnObject
from leyline_adapters.proxy.calls import Call, told
from leyline_adapters.proxy.dialect import Asked, Dialect
from leyline_adapters.proxy.relay import Cut, relayed
from leyline_adapters.proxy.replies import Out, StreamedReply, rewritten_body
from leyline_adapters.proxy.upstream import Answer, Broken, Headers, Upstream
from leyline_agent.receipt import Receipt
from leyline_agent.turn import Turn

__all__ = ["ManagedCall"]

logger = logging.getLogger("leyline.proxy")


class ManagedCall:
    """A call that is a turn of a session. Answered once.

    Args:
        upstream: who answers it.
        dialect: the API it is made in.
        call: its head.
        asked: what it asks for.
        turn: the turn.
    """

    def __init__(
        self, upstream: Upstream, dialect: Dialect, call: Call, asked: Asked, turn: Turn
    ) -> None:
        self._upstream = upstream
        self._dialect = dialect
        self._call = call
        self._asked = asked
        self._turn = turn
        self._num_edits = len(turn.edits)
        self._num_recalls = 0
        self._streamed: StreamedReply | None = None
        self._reply: Mapping[str, Any] | None = None  # whole, though not kept yet
        # What a client is not to see, or asks to see, is cut out of the answer or put into it.
        has_receipts = turn.session.adapter.capabilities.receipts
        self._rewrites = call.wants_receipt or has_receipts or turn.may_advance

    async def answer(self, send: Send) -> None:
        """Make the call, as often as the turn asks for, and pass the answer on.

        Raises:
            Broken: no answer came; nothing was sent.
            Cut: it broke off on the way.
        """
        address = self._upstream.address(self._call.path, self._call.query)
        headers = [line for line in self._call.headers if line[0] != b"accept-encoding"]
        headers.append((b"accept-encoding", b"identity"))  # Replies are read on the way.
        again = True
        try:
            while again:
                body = self._asked.sent(self._turn.request)
                async with self._upstream.send("POST", address, headers, body) as answer:
                    again = await self._passed(answer, send)
                self._num_recalls += again
        except BaseException as error:
            streamed = self._streamed
            if streamed is not None and streamed.is_whole:
                self._reply = streamed.response()
            if self._turn.is_open and self._reply is not None:
                self._finish(self._reply)  # Whoever went away: the reply was whole.
            else:
                self._fail(error if isinstance(error, Exception) else "abandoned")
            raise

    async def _passed(self, answer: Answer, send: Send) -> bool:
        """Pass an answer on; whether the turn asks for another call instead."""
        if not 200 <= answer.status < 300:
            self._fail(f"the upstream answered {answer.status}")
            await relayed(answer, send, self._said())
            return False
        if not answer.readable:
            reason = "the reply is compressed: it is known when it is sent back"
            await relayed(answer, send, self._said(reason))
            self._finish(None)
            return False
        if answer.streams:
            return await self._passed_stream(answer, send)
        data = await answer.read()
        body = _read(data)
        completion = self._dialect.completion(body.values) if body else None
        if body is None or completion is None:
            reason = "the answer is no reply that can be read"
            self._fail(reason)
            await respond(send, answer.status, [*answer.headers, *self._said(reason)], data)
            return False
        if self._turn.may_advance and self._advances(completion):
            return True
        if self._rewrites:
            receipt = self._told(self._finish(completion))
            values = self._dialect.delivered(body.values, self._turn)
            data = rewritten_body(body, values, receipt)
        self._reply = completion
        await respond(send, answer.status, [*answer.headers, *self._said()], data)
        if self._turn.is_open:  # Nobody else's turn comes between; the client need not wait.
            self._finish(completion)
        return False

    async def _passed_stream(self, answer: Answer, send: Send) -> bool:
        """As `_passed`. The turn is over before the last words are handed on.

        So a client that stops there leaves a finished turn, and one that makes its next call at
        once finds it.
        """
        delivery = self._turn.delivery() if self._turn.may_advance else None
        clean = self._dialect.cleaned(delivery) if delivery else None
        streamed = StreamedReply(self._dialect.stream(), by_events=self._rewrites, clean=clean)
        self._streamed = streamed
        out = Out(send, answer, self._said())
        broken: Broken | None = None
        try:
            async for piece in answer.chunks():
                streamed.add(piece)
                if streamed.has_ended and self._turn.is_open and self._closes(streamed):
                    return True
                await out.write(streamed.ready(over=not self._turn.is_open))
        except Broken as error:
            broken = error
        streamed.end(str(broken or ""))
        if self._turn.is_open and self._closes(streamed):
            return True
        await out.write(streamed.ready(over=True))
        if broken is not None:
            logger.warning("%s", broken)
            raise Cut from broken
        await out.end()
        return False

    def _closes(self, streamed: StreamedReply) -> bool:
        """Close the turn as its stream ended; whether it asks for another call instead."""
        if streamed.error:
            self._fail(streamed.error)
            return False
        response = streamed.response()
        if streamed.recalls and response is not None and self._advances(response):
            return True
        receipt = self._finish(response)
        if self._rewrites:
            streamed.put_receipt(self._told(receipt))
        return False

    def _said(self, reason: str = "") -> Headers:
        """The header lines about the turn."""
        turn = self._turn
        return told(
            {
                "Leyline-Session": turn.session.id,
                "Leyline-Version": turn.commit.version,
                "Leyline-Base-Version": turn.commit.base_version,
                "Leyline-Edits": self._num_edits,
                "Leyline-Recalls": self._num_recalls or "",
                "Leyline-Skipped": "; ".join(f"{n.policy}: {n.kind}" for n in turn.skipped),
                "Leyline-Reason": reason,
            }
        )

    def _advances(self, completion: Mapping[str, Any]) -> bool:
        try:
            return self._turn.advance(completion)
        except Exception:  # What goes wrong there must not cost the client its answer.
            logger.exception("turn %s cannot go on", self._turn.commit.version)
            return False

    def _finish(self, completion: Mapping[str, Any] | None) -> Receipt | None:
        try:
            return self._turn.finish(completion)
        except Exception:  # As above: a journal's disk is full.
            logger.exception("turn %s was answered but not kept", self._turn.commit.version)
            return None

    def _fail(self, error: BaseException | str) -> None:
        if not self._turn.is_open:
            return
        try:
            self._turn.fail(error)
        except Exception:
            logger.exception("turn %s cannot be given up", self._turn.commit.version)

    def _told(self, receipt: Receipt | None) -> dict[str, Any] | None:
        """The receipt as the client gets it; None where it did not ask."""
        if receipt is None or not self._call.wants_receipt:
            return None
        return receipt.model_dump(mode="json")


def _read(data: bytes) -> Body | None:
    try:
        return Body(data, ())
    except NotAnObject:
        return None
