import json

from watched import SECRET, TASK, Stub, model, run

from leyline_agent import Policy, Session
from leyline_agent.testing import MockAdapter


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
