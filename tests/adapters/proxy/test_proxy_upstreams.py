"""What upstreams and networks do to a proxy: its client sees it, and no turn is made of it."""

import asyncio
import json
import socket
import threading
import time

import httpx
import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

CHAT = "/v1/chat/completions"
FIRST = {"choices": [{"index": 0, "delta": {"content": "He"}, "finish_reason": None}]}
LAST = {"choices": [{"index": 0, "delta": {"content": "llo"}, "finish_reason": "stop"}]}
END = b"data: [DONE]\n\n"


def event(body):
    return f"data: {json.dumps(body)}\n\n".encode()


def post(running, messages, headers=None, **fields):
    body = {"model": "m", "messages": messages, **fields}
    return httpx.post(running.url + CHAT, json=body, headers=headers or {}, timeout=10)


def settled(session, *, failed):
    """Wait for the proxy to hear of what its client saw already."""
    deadline = time.monotonic() + 5
    while session.stats().failed < failed or not session.is_idle:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("status", "headers"), [(429, {"Retry-After": "7"}), (500, {}), (400, {"x-odd": "1"})]
)
def test_upstream_errors_come_back_as_they_are(proxy, provider, task, turns, status, headers):
    messages = turns(proxy.client(), task, 2)
    [session] = proxy.all
    before = (session.history, session.view, session.version)

    async def refuse(request, body):
        return Response(b'{"error": {"odd":  1}}', status, headers, "application/json")

    provider.handle = refuse
    answer = post(proxy, messages, {"authorization": "Bearer key-a"})
    assert (answer.status_code, answer.content) == (status, b'{"error": {"odd":  1}}')
    assert headers.items() <= {k.title(): v for k, v in answer.headers.items()}.items() or (
        answer.headers["x-odd"] == "1"
    )
    assert (session.history, session.view, session.version) == before
    assert session.stats().failed == 1
    provider.handle = None
    again = post(proxy, messages, {"authorization": "Bearer key-a"})
    assert again.headers["leyline-version"] == answer.headers["leyline-version"] == "3"


def test_a_clients_own_retries_work(proxy, provider, task, monkeypatch):
    monkeypatch.setattr("openai._base_client.BaseClient._calculate_retry_timeout", lambda *_: 0)
    count = iter(range(9))
    handle = provider.handle

    async def flaky(request, body):
        if next(count) < 2:
            return Response(b"{}", 503)
        provider.handle = handle
        return JSONResponse(provider.model.create(**json.loads(body)))

    provider.handle = flaky
    client = proxy.client(max_retries=3)
    client.chat.completions.create(model="m", messages=task)
    [session] = proxy.all
    assert (session.version, session.stats().failed) == (1, 2)


def test_an_upstream_that_is_too_slow(start, provider, task):
    async def sleep(request, body):
        await asyncio.sleep(5)
        return Response(b"")

    running = start(provider.url, timeout=0.2, adapter="openai")
    provider.handle = sleep
    answer = post(running, task)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "upstream_timeout"
    assert "--timeout" in answer.json()["error"]["message"]
    [session] = running.all
    assert session.stats().failed == 1


@pytest.mark.parametrize("adapter", ["auto", "openai"])
def test_an_upstream_that_is_not_there(start, task, adapter):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = start(f"http://127.0.0.1:{port}", adapter=adapter)
    answer = post(running, task)
    assert answer.status_code == 502
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("server_error", "upstream_unreachable")
    assert str(port) in error["message"]
    assert httpx.get(running.url + "/v1/models").status_code == 502
    assert httpx.get(running.url + "/health").json()["status"] == "ok"


@pytest.fixture
def raw():
    """An upstream that says what it is told to, byte for byte, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        said = []

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += connection.recv(65536)
                    length = [
                        int(line.split(b":")[1])
                        for line in head.split(b"\r\n")
                        if line.lower().startswith(b"content-length")
                    ]
                    rest = length[0] - len(head.split(b"\r\n\r\n", 1)[1]) if length else 0
                    while rest > 0:
                        rest -= len(connection.recv(65536))
                    for piece in said:
                        connection.sendall(piece)
                        time.sleep(0.05)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", said
        server.shutdown(socket.SHUT_RDWR)


CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_stream_that_breaks_is_seen_broken(start, raw, task):
    url, said = raw
    said += [CHUNKED, chunk(event(FIRST))]
    running = start(url, adapter="openai")
    body = {"model": "m", "messages": task, "stream": True}
    came = []
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("POST", running.url + CHAT, json=body) as response,
    ):
        came.extend(response.iter_raw())
    assert b"".join(came) == event(FIRST)
    [session] = running.all
    settled(session, failed=1)
    assert session.version == 0


def test_a_stream_that_breaks_behind_its_last_words_is_a_turn(start, raw, task):
    url, said = raw
    said += [CHUNKED, chunk(event(FIRST)), chunk(event(LAST))]
    running = start(url, adapter="openai")
    body = {"model": "m", "messages": task, "stream": True}
    came = []
    with (
        pytest.raises(httpx.RemoteProtocolError),
        httpx.stream("POST", running.url + CHAT, json=body) as response,
    ):
        came.extend(response.iter_raw())
    assert b"".join(came) == event(FIRST) + event(LAST)
    [session] = running.all
    settled(session, failed=0)
    assert session.history[-1]["content"] == "Hello"


def test_an_answer_that_breaks_before_its_end(start, raw, task):
    url, said = raw
    said += [b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"ch']
    running = start(url, adapter="openai")
    answer = post(running, task)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_broken"
    assert running.all[0].version == 0


@pytest.mark.parametrize("ending", [b"", event({"error": {"message": "overloaded"}}) + END])
def test_a_stream_without_an_end_is_no_turn(proxy, provider, task, ending):
    async def handle(request, body):
        return StreamingResponse(iter([event(FIRST), ending]), media_type="text/event-stream")

    provider.handle = handle
    body = {"model": "m", "messages": task, "stream": True}
    answer = httpx.post(proxy.url + CHAT, json=body)
    assert answer.content == event(FIRST) + ending
    [session] = proxy.all
    settled(session, failed=1)
    assert session.version == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_ends_the_upstreams_work(proxy, provider, task, stream):
    async def endless(request, body):
        async def send():
            try:
                while True:
                    yield event(FIRST)
                    await asyncio.sleep(0.01)
            finally:
                provider.gone.set()

        if stream:
            return StreamingResponse(send(), media_type="text/event-stream")
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        provider.gone.set()
        return Response(b"")

    provider.handle = endless
    body = {"model": "m", "messages": task, "stream": stream}
    if stream:
        with httpx.stream("POST", proxy.url + CHAT, json=body) as response:
            next(response.iter_raw())
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(proxy.url + CHAT, json=body, timeout=0.3)
    assert provider.gone.wait(5)
    [session] = proxy.all
    settled(session, failed=1)
    assert session.version == 0


def test_a_client_that_stops_at_the_last_words_leaves_a_turn(proxy, provider, task):
    release = threading.Event()

    async def handle(request, body):
        async def send():
            yield event(FIRST)
            yield event(LAST)
            while not release.is_set():
                await asyncio.sleep(0.01)

        return StreamingResponse(send(), media_type="text/event-stream")

    provider.handle = handle
    body = {"model": "m", "messages": task, "stream": True}
    with httpx.stream("POST", proxy.url + CHAT, json=body) as response:
        next(response.iter_raw())
        time.sleep(0.1)
    [session] = proxy.all
    settled(session, failed=0)
    release.set()
    assert session.history[-1]["content"] == "Hello"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages/count_tokens"])
def test_what_goes_through_says_its_length(start, path, chunked):
    heads = []

    def take(listening):
        connection, _ = listening.accept()
        data = b""
        while not data.endswith((b"whole}", b"0\r\n\r\n")):
            data += connection.recv(65536)
        heads.append(data.lower())
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        connection.close()

    body = b"{the body is whole}"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=take, args=(listening,), daemon=True)
        thread.start()
        running = start(f"http://127.0.0.1:{listening.getsockname()[1]}", adapter="openai")
        sent = iter([body[:5], body[5:]]) if chunked else body
        assert httpx.post(running.url + path, content=sent, timeout=10).content == b"{}"
        thread.join(5)
    head, _, told = heads[0].partition(b"\r\n\r\n")
    assert (b"transfer-encoding: chunked" in head) is chunked
    assert (f"content-length: {len(body)}".encode() in head) is not chunked
    assert (told == body) is not chunked
