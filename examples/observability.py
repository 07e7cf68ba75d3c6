"""What Leyline did, seen four ways: a live line, spans, a receipt, a journal.

    pip install 'leyline-agent[otel]' opentelemetry-sdk
    python examples/observability.py [journal.jsonl]

The model is played by a script and its engine is simulated; no key and no network are needed. In a
program of yours an exporter takes the place of the tree that is printed here.
"""

from __future__ import annotations

import sys

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import leyline_agent as leyline
from leyline_agent import telemetry
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

OUTPUT = "tests/test_table.py::test_rows PASSED\n" * 40
SHOWN = (
    "gen_ai.usage.input_tokens",
    "leyline.tokens.reused_spliced",
    "leyline.edit.policy",
    "leyline.edit.mode_used",
    "leyline.edit.tokens_before",
    "leyline.edit.tokens_after",
)


def run_agent(journal: str | None) -> leyline.Session:
    """An agent that calls a tool five times; its session."""
    model = DeterministicModel(*[tool_call("bash", command="make test")] * 5, "Everything passes.")
    session = leyline.Session("keep_last:n=2", MockAdapter(model), id="run-1", journal=journal)
    messages = [{"role": "user", "content": "Does everything pass?"}]
    while messages[-1]["role"] != "assistant":
        turn = session.begin(messages, model="scripted")
        reply = session.adapter.complete(turn.request)
        turn.finish(reply)
        message = reply.choices[0].message
        messages.append(message)
        for call in message.get("tool_calls", ()):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": OUTPUT})
    return session


def show(exporter: InMemorySpanExporter) -> None:
    """Print the spans as a tree, children and events below."""
    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def branch(parent: int | None, depth: int) -> None:
        for span in spans:
            if (span.parent.span_id if span.parent else None) == parent:
                print("  " * depth + span.name, _told(span.attributes or {}))
                branch(span.context.span_id, depth + 1)
                for event in span.events:
                    print("  " * (depth + 1) + "·", event.name, _told(event.attributes or {}))

    branch(None, 0)


def _told(attributes: dict) -> str:
    named = {name.rpartition(".")[2]: attributes[name] for name in SHOWN if name in attributes}
    return ", ".join(f"{name} {value}" for name, value in named.items())


def main() -> None:
    """Run the agent, then say what was seen."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(tracer_provider=provider)

    journal = sys.argv[1] if len(sys.argv) > 1 else None
    with leyline.live(), provider.get_tracer("example").start_as_current_span("agent"):
        session = run_agent(journal)
    show(exporter)

    receipt = session.receipts[-1]
    print(f"the last prompt: {receipt.prompt} tokens, {receipt.reused} of them reused")
    if journal:
        print(f"leyline inspect {journal} --why tells the rest")


if __name__ == "__main__":
    main()
