"""The SDK's own session over HTTP: a policy here, the splice there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from leyline_adapters.bundled.http import HttpAdapter
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.session import Session

OUTPUT = "error in line 12: no such file or directory. " * 12


@pytest.fixture
def adapter(live_url: str) -> Iterator[HttpAdapter]:
    with HttpAdapter(live_url) as adapter:
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
