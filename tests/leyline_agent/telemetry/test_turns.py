import asyncio
import gc
import json
import subprocess
import sys
import threading

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from watched import SECRET, TASK, Stub, model, run

from leyline_agent import Edit, LeylineWarning, Session, wrap
from leyline_agent.telemetry.turns import Telemetry
from leyline_agent.testing import MockAdapter


def test_a_turn_is_a_span_with_the_conventions_names(told):
    session = Session(Stub(), MockAdapter(model()), id="s-1", observers=[told.telemetry()])
    run(session, 3)
    *_, span = told.turns
    receipt = session.receipts[-1]
    assert (span.name, span.kind) == ("chat m-1", SpanKind.CLIENT)
    assert span.status.status_code is StatusCode.UNSET
    told_of = dict(span.attributes)
    assert told_of.pop("leyline.history.tokens") > receipt.prompt
    assert told_of == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mock",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.conversation.id": "s-1",
        "gen_ai.conversation.compacted": True,
        "gen_ai.usage.input_tokens": receipt.prompt,
        "gen_ai.usage.cache_read.input_tokens": receipt.reused,
        "gen_ai.usage.output_tokens": receipt.completion,
        "leyline.version": 3,
        "leyline.base_version": 2,
        "leyline.history.messages": 5,
        "leyline.reason": "asked",
        "leyline.tokens.reused_exact": receipt.reused_exact,
        "leyline.tokens.reused_spliced": receipt.reused_spliced,
        "leyline.tokens.recomputed": receipt.recomputed,
        "leyline.tokens.prefilled": receipt.prefilled,
        "leyline.outcome": "committed",
    }
    assert receipt.completion > 0


def test_nothing_is_compacted_before_the_first_edit(told):
    run(Session(Stub(), MockAdapter(model()), observers=[told.telemetry()]), 3)
    compacted = [span.attributes.get("gen_ai.conversation.compacted") for span in told.turns]
    assert compacted == [None, None, True]


def test_the_policies_are_a_span_inside(told):
    session = Session(Stub(), MockAdapter(model()), observers=[told.telemetry()])
    run(session, 1)
    policies, turn = told.exporter.get_finished_spans()
    assert policies.name == "leyline.policies"
    assert policies.parent.span_id == turn.context.span_id
    assert turn.start_time == policies.start_time < policies.end_time <= turn.end_time


@pytest.mark.parametrize(
    ("error", "outcome", "kind", "status"),
    [
        (TimeoutError(SECRET), "failed", "TimeoutError", StatusCode.ERROR),
        (json.JSONDecodeError(SECRET, "", 0), "failed", "json.decoder.JSONDecodeError", None),
        ("no answer", "failed", "_OTHER", StatusCode.ERROR),
        ("abandoned", "abandoned", None, StatusCode.UNSET),
        (None, "abandoned", None, StatusCode.UNSET),
    ],
)
def test_a_turn_that_fails(told, error, outcome, kind, status):
    session = Session(observers=[told.telemetry()])
    session.begin([TASK]).fail(error)
    (span,) = told.turns
    assert span.attributes["leyline.outcome"] == outcome
    assert span.attributes.get("error.type") == kind
    assert span.status.status_code is (status or StatusCode.ERROR)
    assert "hunter2" not in span.to_json()


def test_a_turn_that_is_dropped_ends_when_it_was(told):
    telemetry = told.telemetry()
    session = Session(observers=[telemetry])
    turn = session.begin([TASK])
    del turn
    gc.collect()
    assert told.turns == []
    done = session.begin([TASK])
    (dropped,) = told.turns
    assert dropped.attributes["leyline.outcome"] == "abandoned"
    done.finish("ok")
    assert dropped.end_time <= told.turns[-1].end_time
    assert [span.attributes["leyline.outcome"] for span in told.turns] == ["abandoned", "committed"]
    telemetry.close()
    assert len(told.turns) == 2


def test_a_turn_that_is_open_when_the_process_ends(tmp_path):
    code = (
        "from opentelemetry import trace\n"
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter\n"
        "provider = TracerProvider()\n"
        "provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))\n"
        "trace.set_tracer_provider(provider)\n"
        "from leyline_agent import Session, telemetry\n"
        "telemetry.enable()\n"
        "turn = Session().begin([{'role': 'user', 'content': 'hi'}])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == ""
    assert '"leyline.outcome": "abandoned"' in run.stdout


def test_a_span_is_a_child_of_the_callers(told):
    session = Session(adapter=MockAdapter(model()), observers=[told.telemetry()])
    with told.tracer_provider.get_tracer("mine").start_as_current_span("agent") as mine:
        run(session, 1)
    turn = told.turns[0]
    assert turn.parent.span_id == mine.get_span_context().span_id


async def test_tasks_and_threads_keep_their_parents(told):
    session = Session(adapter=MockAdapter(model()), observers=[told.telemetry()])
    tracer = told.tracer_provider.get_tracer("mine")

    async def task(name):
        with tracer.start_as_current_span(name):
            turn = session.begin([{**TASK, "content": name}])
            await asyncio.sleep(0)
            await asyncio.to_thread(turn.finish, "ok")

    def thread(name):
        with tracer.start_as_current_span(name):
            session.begin([{**TASK, "content": name}]).finish("ok")

    threads = [threading.Thread(target=thread, args=[f"thread {n}"]) for n in range(4)]
    for each in threads:
        each.start()
    await asyncio.gather(*[task(f"task {n}") for n in range(4)])
    for each in threads:
        each.join()
    callers = {s.context.span_id: s.name for s in told.turns if s.name.startswith(("ta", "th"))}
    turns = [span for span in told.turns if span.name.startswith("chat")]
    assert sorted(callers[span.parent.span_id] for span in turns) == sorted(callers.values())
    assert len(turns) == 8


def test_an_edit_ahead_is_no_call(told):
    session = Session(adapter=MockAdapter(model()), observers=[told.telemetry()])
    messages = run(session, 1)
    session.begin(messages).finish("wait")
    session.edit(Edit(2, 3, ({**messages[2], "content": "short"},)))
    session.edit_ahead()
    *_, span = told.turns
    assert (span.name, span.kind) == ("leyline.edit_ahead", SpanKind.INTERNAL)
    assert "gen_ai.operation.name" not in span.attributes
    assert [event.name for event in span.events] == ["leyline.edit"]


def test_the_provider_can_be_named(told):
    Session(observers=[told.telemetry(provider="x_ai")]).begin([TASK]).finish("ok")
    assert told.turns[0].attributes["gen_ai.provider.name"] == "x_ai"


def test_a_wrapped_stream_is_one_span(told):
    script = model(2)

    @wrap(observers=[told.telemetry()])
    def ask(messages):
        return script.chat.completions.create(messages=messages, stream=True)

    assert list(ask([TASK]))
    ask([{**TASK, "content": "Other."}]).close()
    gc.collect()
    assert [span.attributes["leyline.outcome"] for span in told.turns] == ["committed", "abandoned"]


def test_spans_that_go_nowhere_are_told_of_once():
    session = Session(observers=[Telemetry()])
    with pytest.warns(LeylineWarning, match="no tracer provider"):
        session.begin([TASK]).finish("ok")
    session.begin([TASK, TASK]).finish("ok")


def test_what_a_providers_cache_did_is_told(told):
    session = Session(observers=[told.telemetry()])
    usages = [
        {"prompt_tokens": 900, "completion_tokens": 7},
        {"prompt_tokens": 950, "prompt_tokens_details": {"cached_tokens": 896}},
        {"prompt_tokens": 400, "prompt_tokens_details": {"cached_tokens": 128}},
    ]
    messages = [TASK]
    for usage in usages:
        reply = {"role": "assistant", "content": "ok"}
        session.begin(messages).finish({"choices": [{"message": reply}], "usage": usage})
        messages = [*messages, reply, TASK]
    names = ("gen_ai.usage.cache_read.input_tokens", "leyline.cache.lost")
    assert [tuple(map(span.attributes.get, names)) for span in told.turns] == [
        (None, None),
        (896, None),
        (128, 768),
    ]
