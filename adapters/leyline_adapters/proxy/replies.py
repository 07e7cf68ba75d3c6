"""Replies on their way to the client: streams held where they must be, receipts in and out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from leyline_adapters.proxy.asgi import Send
from leyline_adapters.proxy.body import Body, NotAnObject
from leyline_adapters.proxy.dialect import Whole
from leyline_adapters.proxy.streams import Event, Reader, rewritten
from leyline_adapters.proxy.upstream import Answer, Headers
from leyline_agent.recall.tool import NAME
from leyline_agent.wrapping.streams import DROPPED

__all__ = ["Out", "StreamedReply", "rewritten_body"]

FIELD = "leyline"


class StreamedReply:
    """A streamed reply, held at its start as long as it may be a recall, and at its end.

    Args:
        whole: puts it together.
        by_events: hand on events instead of the pieces that came, so that they can be rewritten.
        clean: takes recalls out of a chunk, or drops it; None where there can be none.
    """

    def __init__(
        self, whole: Whole, *, by_events: bool, clean: Callable[[Any], Any] | None = None
    ) -> None:
        self._whole = whole
        self._by_events = by_events
        self._clean = clean
        self._reader = Reader()
        self._held: list[Event] = []

    def add(self, piece: bytes) -> None:
        """Take a piece into account."""
        events = list(self._reader.feed(piece))
        for event in events:
            self._whole.add(event)
        self._held += events if self._by_events else [Event(piece, "")]

    def end(self, broken: str) -> None:
        """Nothing follows. A reply that is not whole is none: `broken` says why, if anybody did."""
        rest = list(self._reader.end())
        for event in rest:
            self._whole.add(event)
        self._held += rest if self._by_events else []
        if not (self._whole.finished or self._whole.error):
            self._whole.error = broken or "the stream ended before its reply did"

    def ready(self, *, over: bool) -> list[Event]:
        """What can be handed on now; `over`: the turn is, so nothing is held any more."""
        if not over and (self._may_recall or self._whole.finished or self._whole.error):
            return []
        ready, self._held = self._held, []
        if self._clean is None:
            return ready
        cleaned = map(self._cleaned, ready)
        return [event for event in cleaned if event is not None]

    @property
    def has_ended(self) -> bool:
        """Whether the stream says that nothing follows."""
        return self._whole.ended

    @property
    def error(self) -> str:
        """What went wrong; "" when nothing did."""
        return self._whole.error

    @property
    def is_whole(self) -> bool:
        """Whether the reply is whole, though figures may follow."""
        return self._whole.finished and not self._whole.error

    @property
    def recalls(self) -> bool:
        """Whether the reply begins with a recall, so that nothing of it was handed on."""
        return self._clean is not None and self._whole.first_call == NAME

    @property
    def _may_recall(self) -> bool:
        if self._clean is None or self._whole.several:
            return False
        return self._whole.first_call in ("", NAME)

    def response(self) -> dict[str, Any] | None:
        """The chat completion; None when there is none."""
        return self._whole.response()

    def put_receipt(self, receipt: dict[str, Any] | None) -> None:
        """Put this receipt into the last event that holds an object, and take others out."""
        for place in reversed(range(len(self._held))):
            event = self._held[place]
            body = _object(event)
            if body is None:
                continue
            if FIELD in body.values or receipt is not None:
                data = rewritten_body(body, body.values, receipt)
                self._held[place] = Event(rewritten(event, data), data.decode())
            receipt = None

    def _cleaned(self, event: Event) -> Event | None:
        given = event.body
        if given is None or self._clean is None:
            return event
        cleaned = self._clean(given)
        if cleaned is DROPPED:
            return None
        if cleaned == event.body:
            return event
        data = json.dumps(cleaned, separators=(",", ":"))
        return Event(rewritten(event, data.encode()), data)


class Out:
    """Where a stream goes.

    Args:
        send: takes it.
        answer: the upstream's; its head goes in front of the first event.
        said: header lines besides its own.
    """

    def __init__(self, send: Send, answer: Answer, said: Headers) -> None:
        self._send = send
        self._start: dict[str, Any] | None = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.headers, *said],
        }

    async def write(self, events: list[Event]) -> None:
        """Send events, each by itself."""
        if events:
            await self._begin()
        for event in events:
            await self._send({"type": "http.response.body", "body": event.raw, "more_body": True})

    async def end(self) -> None:
        """Nothing follows."""
        await self._begin()
        await self._send({"type": "http.response.body", "body": b""})

    async def _begin(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)


def rewritten_body(body: Body, values: Mapping[str, Any], receipt: dict[str, Any] | None) -> bytes:
    """The object with these values, this receipt and no other."""
    kept = {key: value for key, value in values.items() if key != FIELD}
    return body.replaced(kept if receipt is None else {**kept, FIELD: receipt})


def _object(event: Event) -> Body | None:
    try:
        return Body(event.data.encode(), ())
    except NotAnObject:
        return None
