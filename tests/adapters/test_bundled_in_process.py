"""The in-process adapter over the tiny model; async calls and what cancelling them leaves."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import pytest

from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent.adapter import CallingAdapter, Commit, WireEdit
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError, ContextOverflow, InvalidSpan
from leyline_agent.message import Message
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.wire import CheckedChatRequest
from leyline_agent.timing.pace import Busy

TASK: list[Message] = [
    {"role": "user", "content": "Traceback (most recent call last): error in line 12. " * 8},
    {"role": "assistant", "content": "The tests run. " * 12},
    {"role": "user", "content": "List the folder. " * 12},
]
STUB: Message = {"role": "user", "content": "[removed]"}
NEXT: Message = {"role": "user", "content": "Now read the file again."}
EDIT = WireEdit(messages=(0, 1), count=1, mode=Mode.AMORTIZE)


@pytest.fixture
def adapter(tiny_service: ChatService) -> BundledAdapter:
    return BundledAdapter(tiny_service)


def request(messages: list[Message] = TASK, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": messages, "temperature": 0, "max_tokens": 8, **more}


def said(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)


def commit(base: int, *edits: WireEdit) -> Commit:
    return Commit(session="run", base_version=base, version=base + 1, edits=edits)


def test_it_is_a_calling_adapter(adapter: BundledAdapter) -> None:
    assert isinstance(adapter, CallingAdapter)


def test_turns_and_an_edit(adapter: BundledAdapter) -> None:
    first = adapter.complete(adapter.prepare(request(), commit(0)))
    view = [STUB, *TASK[1:], first["choices"][0]["message"], NEXT]
    sent = adapter.prepare(request(view), commit(1, EDIT))
    receipt = adapter.receipt(list(adapter.stream(sent))[-1])
    assert receipt is not None
    assert receipt.reused_spliced > 0
    done = adapter.apply("run", 2, [Directive(5, 9, (7,), Mode.AMORTIZE)])
    assert (done.version, done.inserted) == (3, 1)
    assert adapter.forget("run", done.edits[0].id).reused_spliced == 0


def test_an_edit_ahead(adapter: BundledAdapter) -> None:
    first = adapter.complete(adapter.prepare(request(), commit(0)))
    view = [STUB, *TASK[1:], first["choices"][0]["message"]]
    assert adapter.edit_ahead(request(view), commit(1, EDIT)).reused_spliced > 0


def test_what_runs_is_in_the_queue(adapter: BundledAdapter) -> None:
    assert isinstance(adapter, Busy)
    assert adapter.queue() == 0
    scheduler = adapter.service.scheduler
    parsed = CheckedChatRequest.model_validate(request())
    task = scheduler.submit(adapter.service.job(parsed, "", stream=False))
    assert adapter.queue() == 1
    scheduler.drive(lambda: task.done)
    assert adapter.queue() == 0


async def test_async_says_the_same(adapter: BundledAdapter) -> None:
    whole = adapter.complete(request())["choices"]
    assert (await adapter.acomplete(request()))["choices"] == whole
    chunks = [chunk async for chunk in adapter.astream(request())]
    assert said(chunks) == whole[0]["message"]["content"]
    answers = await asyncio.gather(*(adapter.acomplete(request()) for _ in range(4)))
    assert [answer["choices"] for answer in answers] == [whole] * 4


async def test_cancelling_stops_the_turn(
    adapter: BundledAdapter, tiny_service: ChatService
) -> None:
    tiny_service.chat.stop_ids = frozenset()
    endless = adapter.prepare(request(max_tokens=3500), commit(0))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(adapter.acomplete(endless), 0.2)
    started = time.monotonic()
    async with aclosing(adapter.astream(endless)) as chunks:
        async for _ in chunks:
            if time.monotonic() - started > 0.2:
                break
    assert (await adapter.acomplete(request(max_tokens=2)))["usage"]["completion_tokens"] == 2
    session = tiny_service.sessions.find("", "run")
    assert session is not None
    assert not session.versions
    with tiny_service.exclusive():
        engine = tiny_service.engine
        assert engine.pool.num_used == engine.forest.num_tokens < 3500


def test_bad_requests(adapter: BundledAdapter) -> None:
    with pytest.raises(AdapterError, match="refuses this request: temperature: must be"):
        adapter.complete(request(temperature=-1))
    with pytest.raises(ContextOverflow):
        adapter.complete(request([{"role": "user", "content": "error in line 12 " * 2000}]))
    with pytest.raises(AdapterError, match="messages: needs 1 or more"):
        adapter.stream(request([]))
    adapter.complete(adapter.prepare(request(), commit(0)))
    with pytest.raises(InvalidSpan):
        adapter.apply("run", 1, [Directive(9, 5)])
    with pytest.raises(AdapterError, match=r"directives\[0\].start: must be 0 or more, not -1"):
        adapter.apply("run", 1, [Directive(-1, 5)])
    with pytest.raises(AdapterError, match=r"leyline.version: 1 is not higher than base_version 1"):
        adapter.edit_ahead(request(), commit(1).model_copy(update={"version": 1}))


def test_what_the_engine_ignores_is_told_once(
    adapter: BundledAdapter, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        adapter.complete(request(extra_body={"min_p": 0.1, "user": "me"}))
    assert [record.message for record in caplog.records] == [
        "the bundled engine ignores min_p, user"
    ]
