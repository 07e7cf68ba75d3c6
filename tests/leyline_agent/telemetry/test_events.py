import json

import pytest
from recalling import Harness, output, recalls, runs
from watched import SECRET, TASK, Broken, Stub, model, run

from leyline_agent import Edit, LeylineWarning, Session
from leyline_agent.testing import MockAdapter, tool_call


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
