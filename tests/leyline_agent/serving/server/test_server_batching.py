"""Several streams at once over HTTP: they share forward passes, and say what each says alone."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from leyline_agent.serving.chat import ChatService

CHAT = "/v1/chat/completions"
STREAMS = 4


@pytest.fixture
def endless(tiny_service: ChatService) -> None:
    """Replies end at `max_tokens` only."""
    tiny_service.chat.stop_ids = frozenset()


def body(number: int, **more: Any) -> dict[str, Any]:
    words = f"Task {number}: list the folder, read the file again."
    return {
        "messages": [{"role": "user", "content": words}],
        "temperature": 0,
        "max_tokens": 200,
        "stream": True,
        **more,
    }


@pytest.mark.usefixtures("endless")
def test_streams_run_at_once(live_url: str, tiny_service: ChatService) -> None:
    def read(number: int) -> list[Any]:
        text = httpx.post(live_url + CHAT, json=body(number), timeout=60).text
        events = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert events.pop() == "[DONE]"
        return [json.loads(event)["choices"] for event in events]

    alone = [read(number) for number in range(STREAMS)]
    sizes: list[int] = []
    compute = tiny_service.engine.compute

    def watched(batch: Any) -> None:
        sizes.append(len(batch))
        compute(batch)

    tiny_service.engine.compute = watched  # type: ignore[method-assign]
    with ThreadPoolExecutor(STREAMS) as pool:
        assert list(pool.map(read, range(STREAMS))) == alone
    assert max(sizes) > 1


@pytest.mark.usefixtures("endless")
def test_health_tells_how_many_run_and_wait(live_url: str, tiny_service: ChatService) -> None:
    tiny_service.engine.config = replace(tiny_service.engine.config, max_batch=2)
    with ExitStack() as stack:
        lines = []  # dropped, they would close the responses
        for number in range(2):
            sending = httpx.stream("POST", live_url + CHAT, json=body(number, max_tokens=4000))
            lines.append(stack.enter_context(sending).iter_lines())
            next(lines[-1])
        with ThreadPoolExecutor(1) as pool:
            third = pool.submit(
                lambda: httpx.post(live_url + CHAT, json=body(3, max_tokens=2), timeout=60)
            )
            told = httpx.get(f"{live_url}/health").json()
            while told["waiting"] != 1 and not third.done():
                told = httpx.get(f"{live_url}/health").json()
            assert (told["running"], told["waiting"]) == (2, 1)
            assert not third.done()
            stack.close()
            assert third.result(60).status_code == 200
