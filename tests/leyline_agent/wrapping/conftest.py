"""Real clients of openai and litellm, answered by a deterministic model."""

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import httpx
import openai
import pytest

from leyline_agent import Policy
from leyline_agent.testing import DeterministicModel, tool_call

SYSTEM = {"role": "system", "content": "You fix bugs."}


def answer_body(model, request):
    """What an OpenAI-compatible server sends: JSON, or server-sent events."""
    stream = request.get("stream")
    options = {k: v for k, v in request.items() if k != "stream"}
    made = model.create(stream=bool(stream), **options)
    if not stream:
        return "application/json", json.dumps(made)
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in made)
    return "text/event-stream", events + "data: [DONE]\n\n"


@pytest.fixture
def model():
    """Calls a tool for ever."""
    count = iter(range(10_000))
    return DeterministicModel(
        lambda messages: tool_call(
            "bash", id=f"c{next(count)}", content="I look.", n=len(messages)
        ),
        repeat=True,
    )


def _transport(model):
    def handle(request):
        kind, body = answer_body(model, json.loads(request.content))
        return httpx.Response(200, headers={"content-type": kind}, content=body.encode())

    return httpx.MockTransport(handle)


@pytest.fixture
def client(model):
    with httpx.Client(transport=_transport(model)) as http:
        yield openai.OpenAI(api_key="none", base_url="http://test/v1", http_client=http)


@pytest.fixture
async def async_client(model):
    async with httpx.AsyncClient(transport=_transport(model)) as http:
        yield openai.AsyncOpenAI(api_key="none", base_url="http://test/v1", http_client=http)


@contextmanager
def _serving(answer):
    """The base URL of a server; `answer(handler, request)` answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["content-length"])
            answer(self, json.loads(self.rfile.read(length)))

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1"
        httpd.shutdown()
        thread.join()


def _send(handler, status, body, **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    with suppress(BrokenPipeError):  # Whoever asked has waited long enough.
        handler.end_headers()
        handler.wfile.write(body.encode())


@pytest.fixture
def server(model):
    """The base URL of an OpenAI-compatible server on this machine."""

    def answer(handler, request):
        kind, body = answer_body(model, request)
        _send(handler, 200, body, content_type=kind)

    with _serving(answer) as url:
        yield url


@pytest.fixture
def faulty_server(model):
    """Its base URL, and what comes instead of the next answers.

    (status, headers), "sleep" for an answer that is late, or "break" for half of a stream.
    """
    faults = []

    def answer(handler, request):
        fault = faults.pop(0) if faults else None
        if isinstance(fault, tuple):
            return _send(handler, fault[0], '{"error": {"message": "no"}}', **fault[1])
        kind, body = answer_body(model, request)
        if fault == "sleep":
            time.sleep(0.4)
        if fault == "break":
            return _send(handler, 200, body[: len(body) // 2], content_length=str(len(body)))
        return _send(handler, 200, body, content_type=kind)

    with _serving(answer) as url:
        yield url, faults


@pytest.fixture
def plain_server(model):
    """One that tells the usage of a stream where it is asked to, as OpenAI does."""
    bodies = []

    def answer(handler, request):
        bodies.append(request)
        asked = (request.get("stream_options") or {}).get("include_usage")
        made = list(model.create(**request))
        told = made if asked else made[:-1]
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in told)
        _send(handler, 200, events + "data: [DONE]\n\n", content_type="text/event-stream")

    with _serving(answer) as url:
        yield SimpleNamespace(url=url, bodies=bodies)


class Stub(Policy):
    """Stub every result but the last."""

    def edits(self, trajectory):
        for found in trajectory.tool_results[:-1]:
            if found.content != "stub":
                yield found.replace("stub")


@pytest.fixture
def stub():
    return Stub()


@pytest.fixture
def task():
    return [SYSTEM, {"role": "user", "content": "Fix the bug."}]


@pytest.fixture
def observe():
    """The messages a harness adds after a reply, as objects or dictionaries."""

    def add(messages, message):
        call_id = message.tool_calls[0].id
        result = {"role": "tool", "tool_call_id": call_id, "content": f"output of {call_id}"}
        return [*messages, message, result]

    return add


@pytest.fixture
def outputs():
    """The contents of the tool messages of a request."""

    def of(request):
        return [m["content"] for m in request["messages"] if m["role"] == "tool"]

    return of
