import threading

import pytest
from watched import Broken, Stub, model, run

from leyline_agent import LeylineWarning, Session
from leyline_agent.testing import MockAdapter


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
