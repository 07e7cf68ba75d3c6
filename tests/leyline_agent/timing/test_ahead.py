"""Edits ahead with the real engine: automatic, in a loop, in this process and behind HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import leyline_agent as leyline
from leyline_adapters.bundled.body import as_body
from leyline_adapters.bundled.http import HttpAdapter
from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent import Edit, Mode, Session, StaleSession, Trajectory
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.wire import ChatRequest
from leyline_agent.testing import tool_call

OUTPUT = "The tool says: no such file or directory. " * 6


class Aged(leyline.Policy):
    """Stub a result once two replies stand behind it: due when a reply has come."""

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit a reply."""
        replies = [i for i, m in enumerate(trajectory.messages) if m["role"] == "assistant"]
        for result in trajectory.tool_results:
            if result.index < (replies[-2] if len(replies) > 1 else 0) and result.content != "stub":
                yield result.replace("stub")


def play(model: LoadedModel, mode: Mode, timing: str) -> Session:
    """Four turns of a recorded agent with an engine of its own."""
    engine = Engine.of(model, EngineConfig(kv_bytes=4 << 20))
    service = ChatService(engine, "tiny", model.tokenizer)
    session = Session(Aged(mode=mode), BundledAdapter(service), id=timing, timing=timing)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Run the tests."}]
    for number in range(4):
        turn = session.begin(messages)
        request = ChatRequest.model_validate(as_body(turn.request, stream=False))
        reply = tool_call("bash", id=f"c{number}", content="Read the file again.")
        receipt, _ = service.recorded(request, reply)
        choice = {"index": 0, "message": reply, "finish_reason": "tool_calls"}
        turn.finish({"choices": [choice], "leyline": receipt.model_dump(mode="json")})
        messages += [reply, {"role": "tool", "tool_call_id": f"c{number}", "content": OUTPUT}]
    session._pace.join()
    return session


@pytest.mark.parametrize("mode", [Mode.FORGET, Mode.REPAIR])
def test_the_call_behind_an_edit_ahead_computes_what_is_new(
    tiny_model: LoadedModel, mode: Mode
) -> None:
    now = play(tiny_model, mode, "now")
    ahead = play(tiny_model, mode, "auto")
    (edited,) = (r for r in now.receipts if r.edits)
    *_, made, call, _ = ahead.receipts
    assert [len(r.edits) for r in ahead.receipts] == [0, 0, 0, 1, 0, 1]
    assert made.edits[0].mode_used is edited.edits[0].mode_used is mode
    assert call.prompt == edited.prompt
    assert call.compute == call.appended < edited.compute
    assert call.removed == 0
    assert made.compute > 0


def test_edits_ahead_make_no_version_stale(tiny_model: LoadedModel) -> None:
    session = play(tiny_model, Mode.REPAIR, "auto")
    *_, call, made = session.receipts
    assert made.base_version == call.version < session.version == made.version
    messages = [*session.history, {"role": "tool", "tool_call_id": "c3", "content": OUTPUT}]
    session.begin(messages, expected_version=call.version).fail()
    session.begin(messages, expected_version=made.version).fail()
    with pytest.raises(
        StaleSession, match=f"is at version {made.version}, not {call.base_version}"
    ):
        session.begin(messages, expected_version=call.base_version)


@pytest.mark.parametrize("where", ["here", "http"])
def test_a_wrapped_loop_edits_ahead(tiny_service: ChatService, live_url: str, where: str) -> None:
    """A plain-text harness, so that any reply calls its tool; all with the tiny model's own."""
    adapter = BundledAdapter(tiny_service) if where == "here" else HttpAdapter(live_url)
    options: dict[str, Any] = {"observations": "user", "timing": "auto"}

    @leyline.wrap(policies=Aged(mode=Mode.FORGET), adapter=adapter, **options)
    def run_agent() -> None:
        import openai

        client = openai.OpenAI(api_key="none")
        messages: list[Any] = [{"role": "user", "content": "Run the tests."}]
        for _ in range(4):
            made = client.chat.completions.create(model="m", messages=messages, max_tokens=4)
            messages += [made.choices[0].message, {"role": "user", "content": OUTPUT}]

    run_agent()
    (session,) = run_agent.leyline.sessions
    session._pace.join()
    if isinstance(adapter, HttpAdapter):
        adapter.close()
    # What a random reply's text reads as may differ from what was sampled: a change of nobody's.
    declared = [[e for e in receipt.edits if e.policy] for receipt in session.receipts]
    assert [len(edits) for edits in declared] == [0, 0, 0, 1, 0, 1]
    assert {e.mode_used for edits in declared for e in edits} == {Mode.FORGET}
    assert session.stats().failed == 0
