"""Turns: a call to complete a chat, from the view that is sent to the reply that is kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from leyline_adapters.proxy.asgi import Send, respond
from leyline_adapters.proxy.body import Body, NotAnObject
from leyline_adapters.proxy.calls import Call, told
from leyline_adapters.proxy.dialect import Asked, Dialect, Whole
from leyline_adapters.proxy.relay import Cut, relayed
from leyline_adapters.proxy.streams import Event, Reader, rewritten
from leyline_adapters.proxy.upstream import Answer, Broken, Headers, Upstream
from leyline_agent.receipt import Receipt
from leyline_agent.turn import Turn

__all__ = ["ManagedCall"]

logger = logging.getLogger("leyline.proxy")

FIELD = "leyline"


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
        self._whole: Whole | None = None
        self._reply: Mapping[str, Any] | None = None
        # What a client is not to see, or asks to see, is cut out of the answer or put into it.
        self._rewrites = call.wants_receipt or turn.session.adapter.capabilities.receipts

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
        except BaseException as error:
            whole = self._whole
            if whole is not None and whole.finished and not whole.error:
                self._reply = whole.response()
            if self._turn.is_open and self._reply is not None:
                self._finish(self._reply)  # Whoever went away: the reply was whole.
            else:
                self._fail(error if isinstance(error, Exception) else "abandoned")
            raise

    async def _passed(self, answer: Answer, send: Send) -> bool:
        """Pass an answer on; whether the turn asks for another call instead."""
        if not 200 <= answer.status < 300:
            self._fail(f"the upstream answered {answer.status}")
            await relayed(answer, send, self.said())
            return False
        if answer.streams and answer.readable:
            return await self._streamed(answer, send)
        data = await answer.read()
        body = self._read(data) if answer.readable else None
        completion = self._dialect.completion(body.values) if body else None
        if body is None or completion is None:
            reason = "the answer is no reply that can be read"
            self._fail(reason)
            await respond(send, answer.status, [*answer.headers, *self.said(reason)], data)
            return False
        if self._advances(completion):
            return True
        if self._rewrites:
            data = _written(body, self._told(self._finish(completion)))
        self._reply = completion
        await respond(send, answer.status, [*answer.headers, *self.said()], data)
        if self._turn.is_open:  # Nobody else's turn comes between; the client need not wait.
            self._finish(completion)
        return False

    async def _streamed(self, answer: Answer, send: Send) -> bool:
        """Pass a stream on. What follows its last words is fetched before they are handed on.

        So a client that stops there leaves a finished turn, and one that makes its next call at
        once finds it.
        """
        whole = self._whole = self._dialect.stream()
        out = _Out(send, answer, self.said())
        reader = Reader()
        held: list[Event] = []
        broken: Broken | None = None
        try:
            async for piece in answer.chunks():
                events = list(reader.feed(piece))
                for event in events:
                    whole.add(event)
                units = events if self._rewrites else [Event(piece, "")]
                if not self._turn.is_open or not (whole.finished or whole.error):
                    await out.write(units)
                    continue
                held += units
                if whole.ended and self._settled(whole, held):
                    await out.write(held)
        except Broken as error:
            broken = error
        rest = list(reader.end())
        for event in rest:
            whole.add(event)
        if self._turn.is_open:
            held += rest if self._rewrites else []
            if not (whole.finished or whole.error):
                whole.error = str(broken or "the stream ended before its reply did")
            self._settled(whole, held)
            await out.write(held)
        if broken is not None:
            logger.warning("%s", broken)
            raise Cut from broken
        await out.end()
        return False

    def _settled(self, whole: Whole, held: list[Event]) -> bool:
        """Close the turn as the stream has it; the receipt goes into what is held."""
        if whole.error:
            self._fail(whole.error)
            return True
        receipt = self._finish(whole.response())
        if self._rewrites:
            _put(held, self._told(receipt))
        return True

    def said(self, reason: str = "") -> Headers:
        """The header lines about the turn."""
        turn = self._turn
        skipped = "; ".join(f"{note.policy}: {note.kind}" for note in turn.skipped)
        return told(
            {
                "Leyline-Session": turn.session.id,
                "Leyline-Version": turn.commit.version,
                "Leyline-Base-Version": turn.commit.base_version,
                "Leyline-Edits": len(turn.edits),
                "Leyline-Skipped": skipped,
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
        except Exception:  # As above: a journal's disk is full, an observer is broken.
            logger.exception("turn %s was answered but not kept", self._turn.commit.version)
            return None

    def _fail(self, error: BaseException | str) -> None:
        if not self._turn.is_open:
            return
        try:
            self._turn.fail(error)
        except Exception:
            logger.exception("turn %s cannot be given up", self._turn.commit.version)

    def _read(self, data: bytes) -> Body | None:
        try:
            return Body(data, ())
        except NotAnObject:
            return None

    def _told(self, receipt: Receipt | None) -> dict[str, Any] | None:
        """The receipt as the client gets it; None where it did not ask."""
        if receipt is None or not self._call.wants_receipt:
            return None
        return receipt.model_dump(mode="json")


class _Out:
    """Where a stream goes."""

    def __init__(self, send: Send, answer: Answer, said: Headers) -> None:
        self._send = send
        self._start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.headers, *said],
        }
        self._started = False

    async def write(self, events: list[Event]) -> None:
        """Send what is there, each by itself; the head goes in front of the first."""
        if not self._started:
            self._started = True
            await self._send(self._start)
        for event in events:
            await self._send({"type": "http.response.body", "body": event.raw, "more_body": True})

    async def end(self) -> None:
        """Nothing follows."""
        await self.write([])
        await self._send({"type": "http.response.body", "body": b""})


def _put(events: list[Event], receipt: dict[str, Any] | None) -> None:
    """Put the receipt into the last event that holds an object, and the upstream's out of all."""
    for place in reversed(range(len(events))):
        event = events[place]
        try:
            body = Body(event.data.encode(), ())
        except NotAnObject:
            continue
        if FIELD in body.values or receipt is not None:
            events[place] = Event(rewritten(event, _written(body, receipt)), event.data)
        receipt = None


def _written(body: Body, receipt: dict[str, Any] | None) -> bytes:
    """The object with this receipt and no other."""
    values = {key: value for key, value in body.values.items() if key != FIELD}
    return body.replaced(values if receipt is None else {**values, FIELD: receipt})
