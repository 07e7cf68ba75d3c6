"""The HTTP adapter against a real server on loopback, and against networks that fail."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from chat_texts import NEXT, STUB, TASK

from leyline_adapters.bundled import http_errors
from leyline_adapters.bundled.http import DEFAULT_URL, HttpAdapter
from leyline_agent.adapter import CallingAdapter, Commit, WireEdit, as_adapter
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import (
    AdapterError,
    ContextOverflow,
    EngineUnavailable,
    InvalidSpan,
    OutOfSlots,
    OverlappingSpans,
    StaleSession,
    UnknownSession,
)
from leyline_agent.message import Message, digest, view_digest
from leyline_agent.serving.chat import ChatService
from leyline_agent.timing.pace import Busy

EDIT = WireEdit(messages=(1, 2), count=1, mode=Mode.AMORTIZE)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_errors, "_backoff", lambda state: 0.0)


@pytest.fixture
def adapter(live_url: str) -> Iterator[HttpAdapter]:
    with HttpAdapter(f"{live_url}/v1/") as adapter:
        yield adapter


def request(messages: list[Message], **more: Any) -> dict[str, Any]:
    return {"messages": messages, "temperature": 0, "max_tokens": 8, **more}


def commit(view: list[Message], base: int, *edits: WireEdit) -> Commit:
    return Commit(
        session="run",
        base_version=base,
        version=base + 1,
        view_digest=view_digest(digest(m) for m in view),
        edits=edits,
    )


def turn(adapter: HttpAdapter, view: list[Message], base: int, *edits: WireEdit) -> dict[str, Any]:
    return adapter.complete(adapter.prepare(request(view), commit(view, base, *edits)))


def reply(body: dict[str, Any]) -> Message:
    message: Message = body["choices"][0]["message"]
    return message


# -- against the real server --------------------------------------------------------------------


def test_it_is_a_calling_adapter(adapter: HttpAdapter) -> None:
    assert isinstance(adapter, CallingAdapter)
    assert adapter.capabilities.modes == frozenset(Mode)


def test_it_is_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = as_adapter("http")
    assert isinstance(found, HttpAdapter)
    assert found.url == DEFAULT_URL
    found.close()
    monkeypatch.setenv("LEYLINE_BASE_URL", "http://box:1234/v1")
    with HttpAdapter() as named:
        assert named.url == "http://box:1234"


def test_turns_and_an_edit(adapter: HttpAdapter) -> None:
    first = turn(adapter, TASK, 0)
    view = [TASK[0], STUB, *TASK[2:], reply(first), NEXT]
    receipt = adapter.receipt(turn(adapter, view, 1, EDIT))
    assert receipt is not None
    assert receipt.reused_spliced > 0
    assert receipt.edits[0].mode_used is Mode.AMORTIZE
    assert adapter.receipts("run") == [adapter.receipt(first), receipt]


def test_what_runs_is_in_the_queue(adapter: HttpAdapter, tiny_service: ChatService) -> None:
    assert isinstance(adapter, Busy)
    assert adapter.queue() == 0
    with ThreadPoolExecutor() as pool:
        with tiny_service.engine.lock:  # nothing is computed meanwhile
            answer = pool.submit(turn, adapter, TASK, 0)
            until = time.monotonic() + 10
            while adapter.queue() == 0 and time.monotonic() < until:
                time.sleep(0.01)
            assert adapter.queue() == 1
        assert reply(answer.result(30))["role"] == "assistant"
    assert adapter.queue() == 0


def test_a_stream_says_what_a_completion_says(adapter: HttpAdapter) -> None:
    whole = adapter.complete(request(TASK))
    chunks = list(adapter.stream(request(TASK)))
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert said == reply(whole)["content"]
    receipt = adapter.receipt(chunks[-1])
    assert receipt is not None
    assert receipt.prompt == whole["usage"]["prompt_tokens"]


def test_async_in_several_event_loops(adapter: HttpAdapter) -> None:
    async def both() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        chunks = [chunk async for chunk in adapter.astream(request(TASK))]
        return await adapter.acomplete(request(TASK)), chunks

    for _ in range(2):
        whole, chunks = asyncio.run(both())
        said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
        assert said == reply(whole)["content"]


def test_closing_a_stream_abandons_the_turn(
    adapter: HttpAdapter, tiny_service: ChatService
) -> None:
    tiny_service.chat.stop_ids = frozenset()
    chunks = adapter.stream(adapter.prepare(request(TASK, max_tokens=3000), commit(TASK, 0)))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    with pytest.raises(UnknownSession, match="'run'"):
        adapter.receipts("run")


def test_directives_edits_ahead_and_forgetting(adapter: HttpAdapter) -> None:
    first = turn(adapter, TASK, 0)
    view = [TASK[0], STUB, *TASK[2:], reply(first)]
    ahead = adapter.edit_ahead(request(view), commit(view, 1, EDIT))
    assert ahead.reused_spliced > 0
    span = Directive(10, 20, (7, 8), Mode.AMORTIZE)
    done = adapter.apply("run", 2, [span])
    assert (done.version, done.removed, done.inserted) == (3, 10, 2)
    assert adapter.apply("run", 2, [span]) == done
    clean = adapter.forget("run", done.edits[0].id)
    assert clean.reused_spliced == 0
    assert [r.version for r in adapter.receipts("run")] == [1, 2, 3, 3]


def test_text_no_encoding_holds(adapter: HttpAdapter) -> None:
    odd: list[Message] = [{"role": "user", "content": "bytes in a tool's output: \udc80"}]
    assert adapter.receipt(turn(adapter, odd, 0)) is not None
    assert len(adapter.receipts("run")) == 1


def test_errors_come_back_as_what_they_are(adapter: HttpAdapter) -> None:
    long: list[Message] = [{"role": "user", "content": "error in line 12 " * 2000}]
    with pytest.raises(ContextOverflow, match="4096"):
        adapter.complete(request(long))
    with pytest.raises(ContextOverflow, match="4096"):
        next(adapter.stream(request(long)))
    with pytest.raises(UnknownSession, match="'run'"):
        adapter.apply("run", 1, [])
    turn(adapter, TASK, 0)
    with pytest.raises(InvalidSpan):
        adapter.apply("run", 1, [Directive(5, 100_000)])
    with pytest.raises(OverlappingSpans):
        adapter.apply("run", 1, [Directive(5, 9), Directive(7, 12)])
    adapter.apply("run", 1, [Directive(5, 9)])
    with pytest.raises(StaleSession, match="version 2"):
        adapter.apply("run", 1, [Directive(5, 10)])
    with pytest.raises(AdapterError, match="400: temperature: .* not -1"):
        adapter.complete(request(TASK, temperature=-1))


def test_api_keys_are_tenants(live_url: str, adapter: HttpAdapter) -> None:
    with HttpAdapter(live_url, "ours") as ours, HttpAdapter(live_url, "theirs") as theirs:
        ours.complete(request(TASK))
        received = [a.receipt(a.complete(request(TASK))) for a in (ours, theirs, adapter)]
        assert [r.reused_exact > 0 for r in received if r] == [True, False, False]


def test_the_requests_model_is_not_asked_for(live_url: str, adapter: HttpAdapter) -> None:
    assert adapter.complete(request(TASK, model="openai/gpt-4o"))["model"] == "tiny"
    with (
        HttpAdapter(live_url, model="large") as other,
        pytest.raises(AdapterError, match=r"404: .*'large'.*'tiny'"),
    ):
        other.complete(request(TASK))


def test_an_openai_client_of_the_users_own(live_url: str, adapter: HttpAdapter) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{live_url}/v1", api_key="none")
    first = adapter.prepare(request(TASK), commit(TASK, 0))
    answer = client.chat.completions.create(model="tiny", **first)
    view = [TASK[0], STUB, *TASK[2:], answer.choices[0].message.model_dump(), NEXT]
    second = adapter.prepare(request(view), commit(view, 1, EDIT))
    with client.chat.completions.create(model="tiny", stream=True, **second) as chunks:
        *_, last = chunks
    receipt = adapter.receipt(last.model_dump())
    assert receipt is not None
    assert receipt.reused_spliced > 0
    client.close()


# -- against networks that fail -----------------------------------------------------------------


class Flaky(httpx.BaseTransport):
    """Carries requests to the server, or fails in the ways it is told to, one a request."""

    def __init__(self, *failures: Exception | httpx.Response | str | None) -> None:
        self.failures = list(failures)
        self.sent = 0
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Exception):
            raise failure
        if isinstance(failure, httpx.Response):
            return failure
        response = self.inner.handle_request(request)
        if failure == "lose the answer":
            response.read()
            response.close()
            raise httpx.ReadError("connection reset by peer")
        return response

    def close(self) -> None:
        self.inner.close()


def out_of_slots(**headers: str) -> httpx.Response:
    error = {"message": "the pool is full", "type": "server_error", "code": "out_of_slots"}
    return httpx.Response(503, json={"error": error}, headers=headers)


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("connection refused"),
        httpx.RemoteProtocolError("server disconnected"),
        httpx.Response(502, text="<html>bad gateway</html>"),
        httpx.Response(429, json={"error": {"message": "slow down"}}),
        out_of_slots(),
    ],
    ids=lambda f: type(f).__name__ if isinstance(f, Exception) else str(f.status_code),
)
def test_what_may_pass_is_tried_again(live_url: str, failure: Any) -> None:
    transport = Flaky(failure)
    with HttpAdapter(live_url, transport=transport) as adapter:
        assert adapter.complete(request(TASK))["object"] == "chat.completion"
        assert transport.sent == 2
        transport.failures = [failure]
        assert len(list(adapter.stream(request(TASK)))) > 1
        assert transport.sent == 4


def test_an_answer_that_is_lost_acts_once(live_url: str) -> None:
    transport = Flaky()
    with HttpAdapter(live_url, transport=transport) as adapter:
        first = turn(adapter, TASK, 0)
        view = [TASK[0], STUB, *TASK[2:], reply(first), NEXT]
        transport.failures = ["lose the answer"]
        receipt = adapter.receipt(turn(adapter, view, 1, EDIT))
        assert receipt is not None
        assert (receipt.reason, receipt.version) == ("retry", 2)
        span = Directive(10, 20, (7,), Mode.AMORTIZE)
        transport.failures = ["lose the answer"]
        done = adapter.apply("run", 2, [span])
        assert (done.version, done.reason) == (3, "asked")
        edits = [[e.id for e in r.edits] for r in adapter.receipts("run")]
        assert edits[0] == []
        assert edits[1] == ["2.0"]
        assert edits[-1] == ["3.0"]


def test_what_does_not_pass_is_told(live_url: str) -> None:
    transport = Flaky(*[httpx.ConnectError("connection refused")] * 9)
    with HttpAdapter(live_url, transport=transport) as adapter:
        with pytest.raises(EngineUnavailable, match="connection refused; is `leyline serve`"):
            adapter.complete(request(TASK))
        assert transport.sent == 4
        transport.failures = [out_of_slots() for _ in range(4)]
        with pytest.raises(OutOfSlots, match="the pool is full"):
            adapter.complete(request(TASK))


def test_a_timeout_is_not_tried_again(live_url: str) -> None:
    transport = Flaky(httpx.ReadTimeout("too late"))
    with (
        HttpAdapter(live_url, transport=transport) as adapter,
        pytest.raises(EngineUnavailable, match="timeout="),
    ):
        adapter.complete(request(TASK))
    assert transport.sent == 1


def test_nobody_there() -> None:
    with HttpAdapter("http://127.0.0.1:9", attempts=2) as adapter:
        with pytest.raises(EngineUnavailable, match="127.0.0.1:9"):
            adapter.complete(request(TASK))
        with pytest.raises(EngineUnavailable, match="127.0.0.1:9"):
            asyncio.run(adapter.acomplete(request(TASK)))


@pytest.mark.parametrize("address", ["gpu-box:8000", "ftp://box", "http://["])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(AdapterError), HttpAdapter(address) as adapter:
        adapter.complete(request(TASK))


def test_the_documents_example_runs(live_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "server.md").read_text()
    [example] = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(example.replace("http://127.0.0.1:8000", live_url), {})
    removed, exact = map(int, capsys.readouterr().out.split())
    assert (removed, exact) == (4, 4)
