"""The SDK's own session over HTTP: a policy here, the splice there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from leyline_adapters.bundled.http import HttpAdapter
from leyline_agent.directive import Mode
from leyline_agent.errors import AdapterError, EngineUnavailable
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.session import Session

OUTPUT = "error in line 12: no such file or directory. " * 12


class Line(httpx.BaseTransport):
    """A line to the server that can be cut."""

    def __init__(self) -> None:
        self.cut: Exception | httpx.Response | None = None
        self.inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if isinstance(self.cut, Exception):
            raise self.cut
        return self.cut or self.inner.handle_request(request)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def adapter(live_url: str, line: Line) -> Iterator[HttpAdapter]:
    with HttpAdapter(live_url, transport=line, attempts=1) as adapter:
        yield adapter


def ask(adapter: HttpAdapter, request: dict[str, Any], *, stream: bool) -> dict[str, Any]:
    """A completion, put together from its chunks where it is streamed."""
    if not stream:
        return adapter.complete(request)
    *chunks, last = adapter.stream(request)
    said = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    return {**last, "choices": [{"message": {"role": "assistant", "content": said}}]}


def talk(session: Session, adapter: HttpAdapter, turns: int, *, stream: bool) -> list[Receipt]:
    """So many turns of an agent whose own messages grow and are never edited."""
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You are a careful programmer."},
        {"role": "user", "content": "Run the tests."},
    ]
    receipts = []
    for number in range(turns):
        turn = session.begin(history, temperature=0, max_tokens=6)
        answer = ask(adapter, turn.request, stream=stream)
        receipts.append(turn.finish(answer))
        history += [
            answer["choices"][0]["message"],
            {"role": "user", "content": f"{number}: {OUTPUT}"},
        ]
    return receipts


@pytest.mark.parametrize("stream", [False, True])
def test_a_policy_is_carried_out_by_the_server(
    adapter: HttpAdapter, tiny_service: ChatService, stream: bool
) -> None:
    policy = "truncate_older_than:n=2,max_chars=60,mode=amortize"
    session = Session(policy, adapter, id="run", observations="user")
    receipts = talk(session, adapter, 6, stream=stream)
    edited = [receipt for receipt in receipts if receipt.edits]
    assert len(edited) == 3  # from the fourth turn on, one result ages out a turn
    assert all(receipt.reused_spliced > 0 for receipt in edited)
    assert [edit.policy for receipt in edited for edit in receipt.edits] == [
        "truncate_older_than"
    ] * 3
    assert [receipt.version for receipt in receipts] == [1, 2, 3, 4, 5, 6]
    held = tiny_service.sessions.find("", "run")
    assert held is not None
    assert held.newest is not None
    assert held.newest.number == 6


POLICY = "truncate_older_than:n=1,max_chars=60,mode=amortize"


@pytest.mark.parametrize(
    ("cut", "error"),
    [
        (httpx.ConnectError("connection refused"), EngineUnavailable),
        (httpx.ReadTimeout("too late"), EngineUnavailable),
        (httpx.Response(500, text="oops"), AdapterError),
        (httpx.Response(200, text="<html>"), AdapterError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_session_outlives_its_engine(
    adapter: HttpAdapter, line: Line, cut: Any, error: type[AdapterError]
) -> None:
    session = Session(POLICY, adapter, id="run", observations="user")
    talk(session, adapter, 2, stream=False)
    history, view, version = session.history, session.view, session.version
    messages = [*history, {"role": "user", "content": OUTPUT}]
    turn = session.begin(messages, temperature=0, max_tokens=6)
    line.cut = cut
    with pytest.raises(error):
        adapter.complete(turn.request)
    turn.fail("gone")
    assert (session.history, session.view, session.version) == (history, view, version)
    line.cut = None
    again = session.begin(messages, temperature=0, max_tokens=6)
    assert again.commit == turn.commit
    receipt = again.finish(adapter.complete(again.request))
    assert receipt.reason is Reason.ASKED
    assert receipt.reused_spliced > 0


def test_a_session_goes_on_with_a_restarted_engine(
    adapter: HttpAdapter, tiny_service: ChatService
) -> None:
    session = Session(POLICY, adapter, id="run", observations="user")
    talk(session, adapter, 2, stream=False)
    tiny_service.sessions.drop("", "run")
    tiny_service.engine.reclaim(tiny_service.engine.pool.num_slots)
    receipts = []
    for number in range(2):
        messages = [*session.history, {"role": "user", "content": f"{number}: {OUTPUT}"}]
        turn = session.begin(messages, temperature=0, max_tokens=6)
        receipts.append(turn.finish(adapter.complete(turn.request)))
    assert [receipt.reason for receipt in receipts] == [Reason.UNKNOWN_SESSION, Reason.ASKED]
    assert receipts[0].prefilled == receipts[0].prompt
    assert receipts[1].reused_spliced > 0


def test_a_server_that_knows_nothing_of_edits() -> None:
    """A plain OpenAI server answers; what became of the edits is not known, and that is told."""
    usage = {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 10}}
    reply = {"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
    answer = {"object": "chat.completion", "choices": [reply], "usage": usage}
    plain = httpx.MockTransport(lambda request: httpx.Response(200, json=answer))
    with HttpAdapter("http://plain", transport=plain) as adapter:
        session = Session(POLICY, adapter, id="run", observations="user")
        receipts = talk(session, adapter, 3, stream=False)
    assert [receipt.reason for receipt in receipts] == [Reason.NO_RECEIPT] * 3
    assert receipts[-1].detail.startswith("the answer has no receipt")
    assert (receipts[-1].prompt, receipts[-1].reused_exact) == (50, 10)
    [edit] = receipts[-1].edits
    assert (edit.mode_asked, edit.reason) == (Mode.AMORTIZE, Reason.NO_RECEIPT)
    assert session.version == 3
