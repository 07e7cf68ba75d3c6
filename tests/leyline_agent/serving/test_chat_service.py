"""The chat service in process: who holds the engine, and what is left when a turn goes wrong."""

from __future__ import annotations

import gc
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chat_texts import NEXT, STUB, TASK

from leyline_agent.errors import EngineError, InvalidRequest, UnknownSession
from leyline_agent.message import Message
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.edits import apply_directives, edit_ahead, forget
from leyline_agent.serving.wire import ChatRequest, DirectivesRequest, EditsRequest


def request(messages: list[Message] = TASK, **more: Any) -> ChatRequest:
    body = {"messages": messages, "temperature": 0, "max_tokens": 8, **more}
    return ChatRequest.model_validate(body)


def commit(base: int, *edits: dict[str, Any]) -> dict[str, Any]:
    return {"session": "run", "base_version": base, "version": base + 1, "edits": edits}


def edit(mode: str, **more: Any) -> dict[str, Any]:
    return {"messages": [1, 2], "count": 1, "mode": mode, **more}


def edited(service: ChatService, mode: str, **more: Any) -> dict[str, Any]:
    """A first turn, then one in which the old output is a stub."""
    first = service.complete(request(leyline=commit(0)))
    view = [TASK[0], STUB, *TASK[2:], first["choices"][0]["message"], NEXT]
    return service.complete(request(view, leyline=commit(1, edit(mode, **more))))


def assert_nothing_leaks(service: ChatService) -> None:
    """Only the trees hold slots, once the sessions are gone."""
    for session in service.sessions:
        service.sessions.drop(session.tenant, session.id)
    with service.exclusive():
        assert service.engine.pool.num_used == service.engine.forest.num_tokens


# -- who holds the engine -------------------------------------------------------------------------


def test_a_consumer_may_call_in_the_middle_of_a_stream(tiny_service: ChatService) -> None:
    alone = list(tiny_service.stream(request()))
    inner = tiny_service.complete(request([NEXT]))
    seen = []
    for chunk in tiny_service.stream(request()):
        seen.append(chunk)
        again = tiny_service.complete(request([NEXT]))
        assert again["choices"] == inner["choices"]
    assert [c["choices"] for c in seen] == [c["choices"] for c in alone]
    assert_nothing_leaks(tiny_service)


def test_a_stream_left_lying_holds_nobody_up(tiny_service: ChatService) -> None:
    chunks = tiny_service.stream(request(leyline=commit(0)))
    next(chunks)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(tiny_service.complete, request([NEXT])).result(30)
    del chunks
    assert tiny_service.sessions.find("", "run") is not None
    assert not tiny_service.sessions.find("", "run").versions  # type: ignore[union-attr]
    assert_nothing_leaks(tiny_service)


def test_a_stream_dropped_while_the_engine_is_held(tiny_service: ChatService) -> None:
    # As the garbage collector may do it: on the very thread that holds the engine.
    chunks = tiny_service.stream(request())
    next(chunks)
    next(chunks)
    held = tiny_service.engine.pool.num_used
    with tiny_service.exclusive():
        del chunks
        gc.collect()
        assert tiny_service.engine.pool.num_used == held
    assert_nothing_leaks(tiny_service)


def test_a_stream_closed_on_another_thread(tiny_service: ChatService) -> None:
    chunks = tiny_service.stream(request())
    next(chunks)
    thread = threading.Thread(target=chunks.close)  # type: ignore[attr-defined]
    thread.start()
    thread.join(10)
    assert list(chunks) == []
    assert_nothing_leaks(tiny_service)


def test_threads_are_served_as_if_alone(tiny_service: ChatService) -> None:
    def ask(index: int) -> Any:
        view: list[Message] = [{"role": "user", "content": f"Task {index}: list the folder."}]
        if index % 2:
            return [c["choices"] for c in tiny_service.stream(request(view))]
        return tiny_service.complete(request(view))["choices"]

    alone = [ask(index) for index in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == alone
    assert_nothing_leaks(tiny_service)


# -- what is left when a turn goes wrong ----------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_fault_while_computing(
    tiny_service: ChatService, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    expected = tiny_service.complete(request(), tenant="another")
    executor = tiny_service.engine.executor
    forward, calls = executor.forward, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == call:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(executor, "forward", failing)
        with pytest.raises(KeyboardInterrupt):
            tiny_service.complete(request(leyline=commit(0)))
    # A token whose KV was never computed is in no tree: the next reply is right.
    assert tiny_service.complete(request())["choices"] == expected["choices"]
    assert_nothing_leaks(tiny_service)


def test_a_fault_while_sampling(tiny_service: ChatService, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = tiny_service.engine.executor
    forward = executor.forward

    def broken(batch: Any) -> Any:
        return [done._replace(logits=done.logits * math.nan) for done in forward(batch)]

    with monkeypatch.context() as patch:
        patch.setattr(executor, "forward", broken)
        with pytest.raises(EngineError, match="not finite"):
            tiny_service.complete(request(leyline=commit(0)))
    session = tiny_service.sessions.find("", "run")
    assert session is not None
    assert not session.versions
    assert_nothing_leaks(tiny_service)


def test_an_abandoned_prompt_leaves_no_trace(tiny_service: ChatService) -> None:
    tiny_service.engine.config = type(tiny_service.engine.config)(kv_bytes=0, chunk=64)
    scheduler, pool = tiny_service.scheduler, tiny_service.engine.pool
    task = scheduler.submit(tiny_service.job(request(), stream=True))
    scheduler.drive(lambda: pool.num_used > 64)
    assert task.run is not None
    assert len(task.run.pending) > 64  # one chunk of the prompt is computed, another is not
    scheduler.cancel(task)
    scheduler.drive(lambda: task.done)
    assert pool.num_used == 0


# -- memory ---------------------------------------------------------------------------------------


def test_idle_versions_are_given_up_and_the_edited_one_is_not(tiny_service: ChatService) -> None:
    first = tiny_service.complete(request(leyline=commit(0)))
    pool = tiny_service.engine.pool
    stone = pool.allocate(pool.num_free - 40)  # almost nothing is left
    view = [TASK[0], STUB, *TASK[2:], first["choices"][0]["message"], NEXT]
    second = tiny_service.complete(request(view, leyline=commit(1, edit("amortize"))))
    assert second["leyline"]["reused_spliced"] > 0
    pool.release(stone)
    assert_nothing_leaks(tiny_service)


def test_directives_on_a_full_pool_reuse_what_they_edit(tiny_service: ChatService) -> None:
    tiny_service.complete(request(leyline=commit(0)))
    pool = tiny_service.engine.pool
    stone = pool.allocate(pool.num_free)  # room comes from what the directives take out
    span = {"start": 20, "end": 60, "replacement": [7] * 30, "mode": "amortize"}
    body = DirectivesRequest.model_validate({"base_version": 1, "directives": [span]})
    receipt = apply_directives(tiny_service, "run", body)
    assert receipt.reused_spliced > 0
    assert receipt.prefilled <= 31
    pool.release(stone)
    assert_nothing_leaks(tiny_service)


# -- redaction ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [False, True])
def test_a_redaction_leaves_nothing_of_the_text(tiny_service: ChatService, ahead: bool) -> None:
    if ahead:
        first = tiny_service.complete(request(leyline=commit(0)))
        view = [TASK[0], STUB, *TASK[2:], first["choices"][0]["message"]]
        body = {"messages": view, "leyline": commit(1, edit("forget", redact=True))}
        receipt = edit_ahead(tiny_service, EditsRequest.model_validate(body))
        told = receipt.model_dump(mode="json")
    else:
        told = edited(tiny_service, "forget", redact=True)["leyline"]
    assert [e["reason"] for e in told["edits"]] == ["redacted"]
    assert told["edits"][0]["retained"] == 0
    session = tiny_service.sessions.find("", "run")
    assert session is not None
    old = session.versions[1]
    assert (old.evicted, old.messages, old.sequence.tokens) == (True, None, [])
    plain = tiny_service.complete(request())["leyline"]  # the text again, from outside
    assert plain["reused_exact"] <= told["edits"][0]["start"]
    assert_nothing_leaks(tiny_service)


def test_a_redacted_reply_is_not_remembered(tiny_service: ChatService) -> None:
    first = tiny_service.complete(request(leyline=commit(0)))
    reply = first["choices"][0]["message"]
    gone: Message = {"role": "assistant", "content": "[removed]"}
    wire = {"messages": [4, 5], "count": 1, "mode": "forget", "redact": True}
    tiny_service.complete(request([*TASK, gone, NEXT], leyline=commit(1, wire)))
    session = tiny_service.sessions.find("", "run")
    assert session is not None
    assert session.replies.find(reply) is None
    assert session.replies.find(gone) is None


def test_forgetting_what_never_was(tiny_service: ChatService) -> None:
    with pytest.raises(UnknownSession, match="'run'"):
        forget(tiny_service, "run", "2.0")
    edited(tiny_service, "forget")
    assert forget(tiny_service, "run", "2.0").reason == "no_change"
    with pytest.raises(InvalidRequest, match="has no edit 'nonsense'"):
        forget(tiny_service, "run", "nonsense")
