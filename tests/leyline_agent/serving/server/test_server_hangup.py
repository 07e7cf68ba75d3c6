"""Clients that hang up, read slowly or come all at once; over a real socket where it matters."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from leyline_agent.serving.chat import ChatService

CHAT = "/v1/chat/completions"
LONG = 3500  # tokens; takes seconds


def chat(words: str = "Read the file again.", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": words}], "temperature": 0, **more}


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def health(url: str) -> dict[str, Any]:
    return httpx.get(f"{url}/health").json()


def raw_post(url: str, body: dict[str, Any]) -> socket.socket:
    """A request on a socket of its own, the answer not read."""
    payload = json.dumps(body).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: leyline\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall(head.encode() + payload)
    return connection


@pytest.mark.usefixtures("endless")
def test_hanging_up_in_a_stream_stops_it(live_url: str, tiny_service: ChatService) -> None:
    body = chat(stream=True, max_tokens=LONG, leyline={"session": "run"})
    with httpx.stream("POST", live_url + CHAT, json=body) as response:
        lines = response.iter_lines()
        for _ in range(20):
            next(lines)
    until(lambda: health(live_url)["in_flight"] == 0)
    until(lambda: not health(live_url)["busy"])
    told = health(live_url)
    assert told["tree_tokens"] == told["pool"]["used"] < LONG / 2
    # Nothing was committed, and the server works on.
    assert httpx.get(f"{live_url}/v1/leyline/sessions/run").status_code == 404
    assert told["sessions"] == 0
    assert httpx.post(live_url + CHAT, json=chat(max_tokens=2)).status_code == 200


@pytest.mark.usefixtures("endless")
def test_hanging_up_on_a_completion_stops_it(live_url: str) -> None:
    with raw_post(live_url, chat(max_tokens=LONG)):
        until(lambda: health(live_url)["pool"]["used"] > 0)
    until(lambda: health(live_url)["in_flight"] == 0)
    until(lambda: not health(live_url)["busy"])
    assert health(live_url)["pool"]["used"] < LONG / 2


@pytest.mark.usefixtures("endless")
def test_hanging_up_while_waiting(live_url: str) -> None:
    with httpx.stream("POST", live_url + CHAT, json=chat(stream=True, max_tokens=LONG)) as first:
        lines = first.iter_lines()  # dropped, it would close the response
        next(lines)
        with raw_post(live_url, chat("List the folder.", max_tokens=LONG)):
            until(lambda: health(live_url)["in_flight"] == 2)
        until(lambda: health(live_url)["in_flight"] == 1)
    until(lambda: health(live_url)["in_flight"] == 0)


@pytest.mark.usefixtures("endless")
def test_a_slow_reader_holds_up_nobody(live_url: str) -> None:
    with raw_post(live_url, chat(stream=True, max_tokens=300)) as slow:
        until(lambda: health(live_url)["pool"]["used"] > 0)
        quick = httpx.post(live_url + CHAT, json=chat("List the folder.", max_tokens=4), timeout=30)
        assert quick.status_code == 200
        assert slow.recv(64).startswith(b"HTTP/1.1 200")


def test_clients_that_come_at_once_are_all_served(live_url: str) -> None:
    def ask(index: int) -> tuple[int, str]:
        words = f"Read file {index}, then read the file again."
        body = chat(words, max_tokens=16, leyline={"session": f"run-{index}"})
        if index % 2:
            body["stream"] = True
        answer = httpx.post(live_url + CHAT, json=body, timeout=60)
        return answer.status_code, answer.text

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert [status for status, _ in answers] == [200] * 8
    assert all("[DONE]" in text for _, text in answers[1::2])
    assert health(live_url)["sessions"] == 8


async def test_requests_in_flight_do_not_mix(client: httpx.AsyncClient) -> None:
    def body(index: int) -> dict[str, Any]:
        return chat(f"Task {index}: list the folder.", max_tokens=20)

    alone = [(await client.post(CHAT, json=body(i))).json()["choices"] for i in range(4)]
    together = await asyncio.gather(*(client.post(CHAT, json=body(i)) for i in range(4)))
    assert [answer.json()["choices"] for answer in together] == alone


async def test_a_fault_on_the_way_is_told_in_the_stream(
    tiny_service: ChatService, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    executor = tiny_service.engine.executor
    forward, calls = executor.forward, []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        if len(calls) == 5:
            raise RuntimeError("out of memory, say")
        return forward(*args, **kwargs)

    executor.forward = failing  # type: ignore[method-assign]
    body = chat(stream=True, max_tokens=12, leyline={"session": "run"})
    response = await client.post(CHAT, json=body)
    executor.forward = forward  # type: ignore[method-assign]
    assert response.status_code == 200
    *_, error, done = [line for line in response.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    told = json.loads(error.removeprefix("data: "))["error"]
    assert (told["type"], told["code"]) == ("server_error", "internal_error")
    assert "out of memory" not in error
    assert "out of memory" in caplog.text
    # What was computed before is sound, what was not is gone, and nothing was committed.
    assert (await client.get("/v1/leyline/sessions/run")).status_code == 404
    pool, forest = tiny_service.engine.pool, tiny_service.engine.forest
    assert pool.num_used == forest.num_tokens
    whole = await client.post(CHAT, json=chat(max_tokens=12))
    fresh = await client.post(CHAT, json=chat(max_tokens=12), headers={"Authorization": "other"})
    assert whole.json()["choices"] == fresh.json()["choices"]


async def test_out_of_slots_is_a_503(tiny_service: ChatService, client: httpx.AsyncClient) -> None:
    pool = tiny_service.engine.pool
    held = pool.allocate(pool.num_free - 4)  # somebody else's, never given up
    response = await client.post(CHAT, json=chat(max_tokens=4))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "out_of_slots"
    pool.release(held)
    assert pool.num_used == 0
    assert (await client.post(CHAT, json=chat(max_tokens=4))).status_code == 200
