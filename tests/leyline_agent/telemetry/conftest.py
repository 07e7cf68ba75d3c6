import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from leyline_agent.telemetry import Telemetry


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


@pytest.fixture
def told():
    told = Told()
    yield told
    told.tracer_provider.shutdown()
    told.meter_provider.shutdown()
