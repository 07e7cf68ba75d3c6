"""A session whose turns OpenTelemetry is told of, and what it was told."""

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from leyline_agent import Mode, Policy
from leyline_agent.telemetry import Telemetry
from leyline_agent.testing import DeterministicModel, tool_call

TASK = {"role": "user", "content": "Fix the bug."}
SECRET = "the password is hunter2"


class Stub(Policy):
    """Stub every result but the last."""

    def edits(self, trajectory):
        for found in trajectory.tool_results[:-1]:
            if found.content != "stub":
                yield found.replace("stub", mode=Mode.AMORTIZE, reason="old")


class Broken(Policy):
    """Raises, and quotes what it saw."""

    def edits(self, trajectory):
        raise RuntimeError(trajectory.messages[-1]["content"])


def model(num=9):
    return DeterministicModel(*[tool_call("bash", id=f"c{n}", n=n) for n in range(num)])


def run(session, turns, messages=(TASK,), content="out " * 50):
    """So many turns; the conversation afterwards."""
    for _ in range(turns):
        turn = session.begin(messages, model="m-1", temperature=0.5)
        turn.finish(session.adapter.complete(turn.request))
        reply = session.history[-1]
        call = reply["tool_calls"][0]["id"]
        messages = [*messages, reply, {"role": "tool", "tool_call_id": call, "content": content}]
    return messages


class Told:
    """What OpenTelemetry was told."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def telemetry(self, **options):
        return Telemetry(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options
        )

    @property
    def turns(self):
        """The spans of turns, in the order in which they ended."""
        found = self.exporter.get_finished_spans()
        return [span for span in found if span.name != "leyline.policies"]

    @property
    def metrics(self):
        """(name, attributes) -> what was counted, or for a histogram its sum."""
        data = self.reader.get_metrics_data()
        return {
            (metric.name, frozenset(point.attributes.items())): getattr(
                point, "value", getattr(point, "sum", None)
            )
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }
