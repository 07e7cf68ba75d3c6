"""The HTTP adapter against servers that answer something else than ours would."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from leyline_adapters.bundled import http_errors
from leyline_adapters.bundled.http import HttpAdapter
from leyline_agent.errors import (
    AdapterError,
    ContextOverflow,
    EngineUnavailable,
    LeylineError,
    OutOfSlots,
)
from leyline_agent.receipt import Receipt

MAXIMUM = "model's maximum context length (4096)"
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_errors, "_backoff", lambda state: 0.0)


def request(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "List the folder."}], "temperature": 0, **more}


def full(after: str) -> httpx.Response:
    error = {"message": "the pool is full", "type": "server_error", "code": "out_of_slots"}
    return httpx.Response(503, json={"error": error}, headers={"Retry-After": after})


def server(handle: Handler) -> HttpAdapter:
    return HttpAdapter("http://leyline", transport=httpx.MockTransport(handle))


def test_another_kind_of_server() -> None:
    with (
        server(lambda request: httpx.Response(200, text="<html>hello</html>")) as adapter,
        pytest.raises(AdapterError, match="does not answer with a JSON object"),
    ):
        adapter.complete(request())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (httpx.Response(200, json=[1]), AdapterError, "JSON object; is it a Leyline server"),
        (httpx.Response(500, text="oops"), AdapterError, "answered 500$"),
        (httpx.Response(504, text="<html>"), EngineUnavailable, "answered 504$"),
        (
            httpx.Response(400, json={"error": {"message": "Unrecognized argument: leyline"}}),
            AdapterError,
            "answered 400: Unrecognized argument: leyline",
        ),
        (httpx.Response(404, json={"detail": "Not Found"}), AdapterError, "a Leyline server"),
        (httpx.Response(401, json={"error": "no key"}), AdapterError, "answered 401"),
        (
            httpx.Response(400, json={"error": {"message": f"longer than the {MAXIMUM}"}}),
            ContextOverflow,
            "maximum context length",
        ),
    ],
)
def test_other_answers_are_told_at_once(
    answer: httpx.Response, kind: type[LeylineError], words: str
) -> None:
    sent = []

    def handle(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return answer

    with server(handle) as adapter:
        with pytest.raises(kind, match=words):
            adapter.complete(request())
        with pytest.raises(kind, match=words):
            adapter.apply("run", 1, [])
    assert len(sent) == 2


def events(*bodies: dict[str, Any] | str) -> httpx.Response:
    lines = [b if isinstance(b, str) else json.dumps(b) for b in bodies]
    return httpx.Response(200, text="".join(f"data: {line}\n\n" for line in lines))


def test_a_stream_that_breaks_off() -> None:
    with server(lambda request: events({"choices": []})) as adapter:
        chunks = adapter.stream(request())
        assert next(chunks) == {"choices": []}
        with pytest.raises(EngineUnavailable, match="broke off"):
            next(chunks)


def test_an_error_in_a_stream() -> None:
    error = {"error": {"message": "the pool is full", "code": "out_of_slots"}}
    with server(lambda request: events({"choices": []}, error, "[DONE]")) as adapter:
        chunks = adapter.stream(request())
        next(chunks)
        with pytest.raises(OutOfSlots, match="the pool is full"):
            next(chunks)


@pytest.mark.parametrize("line", ["{broken", "7"])
def test_a_stream_of_something_else(line: str) -> None:
    with server(lambda request: events({"choices": []}, line)) as adapter:
        chunks = adapter.stream(request())
        next(chunks)
        with pytest.raises(AdapterError, match="holds no chunk"):
            next(chunks)


def test_the_server_says_how_long_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    answers = [full(after) for after in ("3", "9999", "-1", "soon")]

    def handle(request: httpx.Request) -> httpx.Response:
        return answers.pop(0) if answers else httpx.Response(200, json={})

    adapter = HttpAdapter("http://leyline", transport=httpx.MockTransport(handle), attempts=5)
    with adapter:
        assert adapter.complete(request()) == {}
    assert waits == [3.0, 30.0, 0.0, 0.0]


def test_what_belongs_to_the_client_library_is_not_sent() -> None:
    bodies: list[dict[str, Any]] = []

    def handle(sent: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(sent.content))
        return httpx.Response(200, json={})

    with server(handle) as adapter:
        ours = {"tools": None, "extra_body": {"top_k": 5}, "timeout": 3}
        adapter.complete(request(api_key="sk-secret", callbacks=[print], **ours))
    [body] = bodies
    assert body == {**request(), "top_k": 5, "stream": False}


def test_receipts_are_checked() -> None:
    wrong = {**Receipt().model_dump(mode="json"), "prompt": 7}
    with server(lambda request: httpx.Response(200, json=wrong)) as adapter:
        with pytest.raises(AdapterError, match="add up"):
            adapter.forget("run", "1.0")
        assert adapter.receipt({"choices": []}) is None
