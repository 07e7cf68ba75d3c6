import asyncio
import gc
import json
import subprocess
import sys
import threading

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from recalling import Harness, output, recalls, runs

from leyline_agent import Edit, LeylineWarning, Mode, Policy, Session, wrap
from leyline_agent.telemetry.turns import Telemetry
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

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


def test_edits_are_events(told):
    session = Session(
        Stub(), MockAdapter(model()), mode_floor="repair", observers=[told.telemetry()]
    )
    run(session, 3)
    (event,) = told.turns[-1].events
    (edit,) = session.receipts[-1].edits
    assert event.name == "leyline.edit"
    assert dict(event.attributes) == {
        "leyline.edit.policy": "stub",
        "leyline.edit.reason": "old",
        "leyline.edit.start": 2,
        "leyline.edit.end": 3,
        "leyline.edit.count": 1,
        "leyline.edit.mode_asked": "amortize",
        "leyline.edit.mode_sent": "repair",
        "leyline.edit.mode_used": "repair",
        "leyline.edit.reason_code": "user_floor",
        "leyline.edit.tokens_before": edit.end - edit.start,
        "leyline.edit.tokens_after": edit.inserted,
        "leyline.edit.tokens_kept_behind": edit.suffix,
        "leyline.edit.tokens_recomputed": 0,
        "leyline.edit.microseconds": 0.0,
    }
    assert edit.end - edit.start > edit.inserted > 0


def test_where_the_engine_tells_nothing_tokens_are_estimates(told):
    session = Session(Stub(), observers=[told.telemetry()])
    messages = [TASK]
    for number in range(3):
        session.begin(messages).finish(tool_call("bash", id=f"c{number}"))
        answer = {"role": "tool", "tool_call_id": f"c{number}", "content": "x" * 400}
        messages = [*messages, session.history[-1], answer]
    span = told.turns[-1]
    (event,) = span.events
    assert event.attributes["leyline.edit.tokens_before"] == 100
    assert event.attributes["leyline.edit.tokens_after"] == 1
    assert event.attributes["leyline.edit.mode_used"] == "forget"
    assert "leyline.edit.microseconds" not in event.attributes
    assert "gen_ai.usage.input_tokens" not in span.attributes
    assert span.attributes["leyline.reason"] == "no_receipt"


def test_what_the_engine_changed_undeclared_is_an_event_too(tiny_service, told):
    from leyline_adapters.bundled.in_process import BundledAdapter

    session = Session(adapter=BundledAdapter(tiny_service), observers=[told.telemetry()])
    turn = session.begin([TASK])
    turn.finish(session.adapter.complete({**turn.request, "max_tokens": 2}))
    changed = [{**TASK, "content": "Fix the other bug."}]
    turn = session.begin(changed)
    receipt = turn.finish(session.adapter.complete({**turn.request, "max_tokens": 2}))
    events = [dict(event.attributes) for event in told.turns[-1].events]
    assert len(events) == len(receipt.edits)
    assert all(event["leyline.edit.policy"] == "" for event in events)


def test_the_policies_are_a_span_inside(told):
    session = Session(Stub(), MockAdapter(model()), observers=[told.telemetry()])
    run(session, 1)
    policies, turn = told.exporter.get_finished_spans()
    assert policies.name == "leyline.policies"
    assert policies.parent.span_id == turn.context.span_id
    assert turn.start_time == policies.start_time < policies.end_time <= turn.end_time


def test_skipped_policies_are_events_that_quote_nothing(told):
    session = Session(Broken(), MockAdapter(model()), observers=[told.telemetry()])
    with pytest.warns(LeylineWarning):
        session.begin([{**TASK, "content": SECRET}]).finish("ok")
    session.edit(Edit(0, 1, ()))
    with pytest.warns(LeylineWarning):
        session.begin([{**TASK, "content": SECRET}]).finish("ok")
    first, second = told.turns
    assert [(event.name, dict(event.attributes)) for event in first.events] == [
        ("leyline.skipped", {"leyline.edit.policy": "broken", "error.type": "RuntimeError"})
    ]
    refused = {
        "leyline.edit.policy": "harness",
        "leyline.edit.where": "messages [0, 1)",
        "error.type": "PinnedMessage",
    }
    assert refused in [dict(event.attributes) for event in second.events]
    assert "hunter2" not in first.to_json() + second.to_json()


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


def test_metrics(told):
    session = Session(
        [Stub(), Broken()], MockAdapter(model()), mode_floor="repair", observers=[told.telemetry()]
    )
    with pytest.warns(LeylineWarning):
        messages = run(session, 3)
    session.begin(messages, model="m-1").fail(TimeoutError())
    stats, metrics = session.stats(), told.metrics

    def get(name, **attributes):
        named = {key.replace("__", "."): value for key, value in attributes.items()}
        return metrics[name, frozenset(named.items())]

    shared = {"gen_ai__operation__name": "chat", "gen_ai__provider__name": "mock"}
    shared["gen_ai__request__model"] = "m-1"
    for kind in ("reused_exact", "reused_spliced", "recomputed", "prefilled"):
        assert get("leyline.tokens", leyline__token__kind=kind) == getattr(stats, kind)
    assert stats.reused_spliced + stats.recomputed > 0
    assert get("gen_ai.client.token.usage", **shared, gen_ai__token__type="input") == stats.prompt
    assert get("leyline.turns", leyline__outcome="committed") == 3
    assert get("leyline.turns", leyline__outcome="failed") == 1
    assert get("gen_ai.client.operation.duration", **shared) > 0
    assert get("gen_ai.client.operation.duration", **shared, error__type="TimeoutError") > 0
    edits = {
        "leyline__edit__policy": "stub",
        "leyline__edit__mode_used": "repair",
        "leyline__edit__reason_code": "user_floor",
    }
    assert get("leyline.edits", **edits) == stats.edits == 1
    skipped = {"leyline__edit__policy": "broken", "error__type": "RuntimeError"}
    assert get("leyline.skipped", **skipped) == 4
    assert get("leyline.policy.duration") == pytest.approx(stats.policy_ms)


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


def test_contents_are_told_only_where_asked(told):
    for options in ({}, {"content": True}):
        session = Session(Stub(), MockAdapter(model()), observers=[told.telemetry(**options)])
        run(session, 2, content=SECRET)
        session.begin([*session.history, {**TASK, "content": "More."}]).fail(ValueError(SECRET))
    without, with_it = told.turns[:3], told.turns[3:]
    assert not any("hunter2" in span.to_json() for span in without)
    sent = json.loads(with_it[1].attributes["gen_ai.input.messages"])
    assert sent[0] == {"role": "user", "parts": [{"type": "text", "content": "Fix the bug."}]}
    call = {"type": "tool_call", "id": "c0", "name": "bash", "arguments": '{"n": 0}'}
    assert sent[1] == {"role": "assistant", "parts": [{"type": "text", "content": ""}, call]}
    answer = {"type": "tool_call_response", "id": "c0", "response": SECRET}
    assert sent[2] == {"role": "tool", "parts": [answer]}
    (said,) = json.loads(with_it[1].attributes["gen_ai.output.messages"])
    assert said["parts"][1]["id"] == "c1"


def test_what_is_redacted_is_not_told(told):
    class Guard(Policy):
        def edits(self, trajectory):
            for found in trajectory.tool_results:
                if "hunter2" in found.content:
                    yield found.replace("[removed]", redact=True, reason=f"has {found.content}")

    session = Session(Guard(), MockAdapter(model()), observers=[told.telemetry(content=True)])
    run(session, 3, content=SECRET)
    assert len(told.turns) == 3
    assert not any("hunter2" in span.to_json() for span in told.turns)
    assert "[removed]" in told.turns[-1].attributes["gen_ai.input.messages"]
    assert told.turns[-1].events[0].attributes["leyline.edit.redact"] is True


def test_parts_that_are_no_text_are_told_by_type(told):
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:x"}},
    ]
    session = Session(observers=[told.telemetry(content=True)])
    session.begin([{"role": "user", "content": parts}]).finish("ok")
    (sent,) = json.loads(told.turns[0].attributes["gen_ai.input.messages"])
    assert sent["parts"] == [{"type": "text", "content": "Look:"}, {"type": "image_url"}]


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


def test_edits_that_wait_are_events(told):
    policy = "truncate_older_than:n=2,max_chars=40"
    session = Session(policy, model(), timing="auto", observers=[told.telemetry()])
    messages = run(session, 1)
    run(session, 2, run(session, 1, messages, content="more " * 2000))
    span, stats = told.turns[-1], session.stats()
    (event,) = span.events
    assert (event.name, event.attributes["leyline.moment.when"]) == ("leyline.moment", "wait")
    assert event.attributes["leyline.moment.held"] is True
    assert event.attributes["leyline.moment.edits"] == 1
    assert event.attributes["leyline.moment.reason"]
    assert told.metrics["leyline.held", frozenset()] == stats.held == 1


def test_edits_while_a_tool_runs_are_told_below_the_caller(told):
    policy, told_of = "truncate_older_than:n=2,max_chars=40", [told.telemetry()]
    session = Session(policy, MockAdapter(model()), timing="auto", observers=told_of)
    with told.tracer_provider.get_tracer("mine").start_as_current_span("agent") as mine:
        run(session, 6)
    for thread in threading.enumerate():
        if thread.name == "leyline-edit-ahead":
            thread.join()
    ahead = [span for span in told.turns if span.name == "leyline.edit_ahead"]
    assert ahead
    assert not any("gen_ai.usage.input_tokens" in span.attributes for span in ahead)
    stats, metrics = session.stats(), told.metrics
    assert stats.ahead == len(ahead)
    assert metrics["leyline.turns", frozenset({("leyline.outcome", "committed")})] == stats.turns
    for kind in ("reused_exact", "reused_spliced", "recomputed", "prefilled"):
        counted = metrics["leyline.tokens", frozenset({("leyline.token.kind", kind)})]
        assert counted == getattr(stats, kind)
    assert {span.parent and span.parent.span_id for span in ahead} == {mine.context.span_id}


def test_recalls_are_events_and_the_hidden_call_a_span(told):
    observers = [told.telemetry(content=True)]
    script = [runs(), runs(), recalls(0), runs(), recalls("nowhere"), "done"]
    agent = Harness(*script, observers=observers)
    agent.turns(4)
    events = [(n, e) for n, s in enumerate(told.turns) for e in s.events if "recall" in e.name]
    hidden = [n for n, span in enumerate(told.turns) if span.attributes.get("leyline.hidden")]
    assert [n for n, _ in events] == hidden == [2, 4]
    found, missing = (dict(event.attributes) for _, event in events)
    assert found.pop("leyline.recall.id")
    assert found == {
        "leyline.recall.found": True,
        "leyline.recall.again": False,
        "leyline.edit.policy": "keep_last",
    }
    assert missing["leyline.recall.found"] is False
    assert "leyline.recall.id" not in missing
    said = told.turns[2].attributes["gen_ai.output.messages"]
    assert "leyline_recall" in said
    assert (
        output(0)
        in json.loads(told.turns[3].attributes["gen_ai.input.messages"])[-1]["parts"][0]["response"]
    )
    by = {"leyline.recall.found": True, "leyline.recall.again": False}
    counted = told.metrics[
        "leyline.recalls", frozenset({**by, "leyline.edit.policy": "keep_last"}.items())
    ]
    assert counted == agent.session.stats().recalls == 1
