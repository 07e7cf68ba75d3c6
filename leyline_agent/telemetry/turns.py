"""The observer that makes spans and metrics of turns."""

from __future__ import annotations

import atexit
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from leyline_agent._version import __version__
from leyline_agent.errors import LeylineError
from leyline_agent.receipt import Receipt
from leyline_agent.telemetry import attributes, content
from leyline_agent.telemetry.attributes import Attributes
from leyline_agent.warning import warn

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from leyline_agent.branch import Snapshot
    from leyline_agent.state import Gone
    from leyline_agent.turn import Prepared
    from leyline_agent.view import Record

__all__ = ["Telemetry"]

SCOPE = "leyline"


class _Open(NamedTuple):
    """A turn that waits for its answer.

    Attributes:
        span: its span.
        began: when it began, in nanoseconds since 1970.
        shared: what its metrics are told by.
        dropping: notes that nobody can finish it any more.
    """

    span: Span
    began: int
    shared: Attributes
    dropping: weakref.finalize[..., Prepared]


class Telemetry:
    """Tells OpenTelemetry of the turns of the sessions whose observer it is.

    A span begins where a turn does, as a child of the caller's current span, and ends where the
    turn is finished or fails. That of a turn which its caller drops ends as `abandoned`, at the
    time when it was dropped; it is handed on with the next event or when the process ends.

    Args:
        content: whether spans hold the messages sent and the reply. What an edit has redacted
            is not in them; what is redacted later was.
        provider: `gen_ai.provider.name`; the adapter's name when None.
        tracer_provider, meter_provider: OpenTelemetry's global ones when None.

    Raises:
        LeylineError: opentelemetry-api is not installed.
    """

    def __init__(
        self,
        *,
        content: bool = False,
        provider: str | None = None,
        tracer_provider: Any = None,
        meter_provider: Any = None,
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise LeylineError(
                f"telemetry needs a package that is not installed ({error}); "
                "pip install 'leyline-agent[otel]'"
            ) from error
        from leyline_agent.telemetry.metrics import Metrics

        self._trace = trace
        self._tracer = trace.get_tracer(SCOPE, __version__, tracer_provider)
        self._metrics = Metrics(metrics.get_meter(SCOPE, __version__, meter_provider))
        self._content = content
        self._provider = provider
        self._open: dict[int, _Open] = {}
        self._dropped: deque[tuple[int, int]] = deque()
        self._is_looking = tracer_provider is None
        atexit.register(_close, weakref.ref(self))

    def begun(self, prepared: Prepared) -> None:
        """A call is about to be made; the policies have run."""
        self._close_dropped()
        self._look_for_a_provider()
        now, proposal = time.time_ns(), prepared.proposal
        began = now - int(proposal.seconds * 1e9)
        shared = attributes.common(prepared, self._provider)
        notes = [attributes.skipped(note) for note in proposal.skipped]
        self._metrics.begun(proposal.seconds, notes, len(proposal.held))
        span = self._started(shared, began, is_call=prepared.asked is not None)
        if span.is_recording():
            span.set_attributes(attributes.asked(prepared))
            for note in notes:
                span.add_event("leyline.skipped", note, now)
            for moment in proposal.moments:
                span.add_event("leyline.moment", attributes.moment(moment), now)
            inside = self._trace.set_span_in_context(span)
            policies = self._tracer.start_span("leyline.policies", inside, start_time=began)
            policies.end(now)
        # Runs wherever the last reference goes, perhaps under a lock of an exporter: only a note.
        key = id(prepared)
        dropping = weakref.finalize(prepared, lambda: self._dropped.append((key, time.time_ns())))
        dropping.atexit = False
        self._open[key] = _Open(span, began, shared, dropping)

    def _started(self, shared: Attributes, began: int, *, is_call: bool) -> Span:
        kinds = self._trace.SpanKind
        name = f"chat {shared.get('gen_ai.request.model', '')}".rstrip()
        return self._tracer.start_span(
            name if is_call else "leyline.edit_ahead",
            kind=kinds.CLIENT if is_call else kinds.INTERNAL,
            attributes=shared,
            start_time=began,
        )

    def committed(self, prepared: Prepared, made: Snapshot, gone: Gone, receipt: Receipt) -> None:
        """The call was answered."""
        self._close_dropped()
        waiting = self._open.pop(id(prepared), None)
        if waiting is None:
            return
        edits = list(attributes.edits(prepared, receipt))
        recalls = list(attributes.recalls(made.exchange))
        self._metrics.spent(receipt, edits, waiting.shared)
        self._metrics.recalled(recalls)
        span = waiting.span
        if span.is_recording():
            is_call = prepared.asked is not None
            span.set_attributes(attributes.spent(receipt, is_call=is_call))
            for edit in edits:
                span.add_event("leyline.edit", edit)
            for recall in recalls:
                span.add_event("leyline.recall", recall)
            if made.exchange and not _replies(prepared, made):
                span.set_attribute("leyline.hidden", True)
            if self._content:
                span.set_attributes(_contents(prepared, made))
        self._end(waiting, "committed")

    def failed(self, prepared: Prepared, error: BaseException | str | None) -> None:
        """The call failed or was given up."""
        self._close_dropped()
        waiting = self._open.pop(id(prepared), None)
        if waiting is None:
            return
        if attributes.is_abandoned(error):
            self._end(waiting, "abandoned")
        else:
            self._end(waiting, "failed", error_type=attributes.error_type(error))

    def close(self) -> None:
        """End the spans of all turns that are open still, as abandoned."""
        self._close_dropped()
        for key in list(self._open):
            waiting = self._open.pop(key, None)
            if waiting is not None:
                self._end(waiting, "abandoned")

    def _close_dropped(self) -> None:
        """End the spans of turns that nobody can finish any more."""
        for _ in range(len(self._dropped)):
            try:
                key, when = self._dropped.popleft()
            except IndexError:  # Another session's thread was first.
                return
            waiting = self._open.pop(key, None)
            if waiting is not None:
                self._end(waiting, "abandoned", when=when)

    def _end(
        self, waiting: _Open, outcome: str, *, error_type: str = "", when: int | None = None
    ) -> None:
        waiting.dropping.detach()
        ended = when or time.time_ns()
        shared = {**waiting.shared, **({"error.type": error_type} if error_type else {})}
        self._metrics.ended(outcome, (ended - waiting.began) / 1e9, shared)
        span = waiting.span
        span.set_attribute("leyline.outcome", outcome)
        if error_type:
            span.set_attribute("error.type", error_type)
            span.set_status(self._trace.StatusCode.ERROR)
        span.end(ended)

    def _look_for_a_provider(self) -> None:
        """Warn, once, where spans are made for nobody."""
        if not self._is_looking:
            return
        self._is_looking = False
        if isinstance(self._trace.get_tracer_provider(), self._trace.ProxyTracerProvider):
            warn(
                "telemetry is on, but OpenTelemetry has no tracer provider: spans go nowhere. Set "
                "one, or start the program with opentelemetry-instrument"
            )


def _replies(prepared: Prepared, made: Snapshot) -> tuple[Record, ...]:
    """The reply as the harness has it, where it is known and meant for the harness."""
    return made.history[len(prepared.draft.history) :]


def _contents(prepared: Prepared, made: Snapshot) -> Attributes:
    """The messages sent, and the model's whole reply."""
    reply = (made.exchange.reply,) if made.exchange else _replies(prepared, made)
    said = content.as_json(record.message for record in reply)
    return {
        "gen_ai.input.messages": content.as_json(prepared.sent),
        "gen_ai.output.messages": said,
    }


def _close(telemetry: weakref.ref[Telemetry]) -> None:
    found = telemetry()
    if found is not None:
        found.close()
