"""A real upstream and a real proxy, each behind a socket of its own."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from leyline_adapters.proxy.parts import Engine, Proxy, Sessions, Upstream
from leyline_adapters.proxy.run import settings
from leyline_agent.policy import as_policy
from leyline_agent.session import Session
from leyline_agent.testing import DeterministicModel, tool_call

Message = dict[str, Any]
Handler = Callable[[Request, bytes], Awaitable[Response]]


class _Quick(uvicorn.Server):
    """Notices sooner that it shall stop."""

    async def main_loop(self) -> None:
        while not self.should_exit:
            await asyncio.sleep(0.01)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application on loopback."""
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="on", **settings())
    server = _Quick(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.force_exit = server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not stop"


@dataclass
class Provider:
    """An OpenAI-compatible provider that plays back a model and keeps what it was sent.

    Attributes:
        model: says the replies.
        handle: answers instead, when set.
        heads, bodies: what came in, oldest first.
        gone: set when a client hung up on `handle`.
    """

    model: DeterministicModel
    handle: Handler | None = None
    heads: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    @property
    def app(self) -> Starlette:
        methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body in self.bodies]

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        if request.url.path.endswith("/models") and self.handle is None:
            return JSONResponse({"object": "list", "data": [{"id": "m"}]})
        self.paths.append(request.scope["raw_path"].decode() + "?" + request.url.query)
        self.heads.append(dict(request.headers))
        self.bodies.append(body)
        if self.handle is not None:
            return await self.handle(request, body)
        asked = json.loads(body)
        stream = asked.pop("stream", False)
        made = self.model.create(stream=stream, **asked)
        if not stream:
            return JSONResponse(made, headers={"x-request-id": "r1"})
        return StreamingResponse(_events(made), media_type="text/event-stream")


async def _events(chunks: Any) -> AsyncIterator[str]:
    for chunk in chunks:
        yield f"data: {json.dumps(chunk)}\n\n"
        await asyncio.sleep(0)
    yield "data: [DONE]\n\n"


def calling() -> DeterministicModel:
    """Calls a tool for ever."""
    count = iter(range(100_000))
    return DeterministicModel(
        lambda messages: tool_call("bash", id=f"c{next(count)}", content="I look.", n=1),
        repeat=True,
    )


@pytest.fixture(scope="module")
def _provider() -> Iterator[Provider]:
    made = Provider(calling())
    with served(made.app) as made.url:
        yield made


@pytest.fixture
def provider(_provider: Provider) -> Provider:
    """An upstream that calls a tool for ever."""
    fresh = Provider(calling(), url=_provider.url)
    vars(_provider).update(vars(fresh))
    return _provider


@dataclass
class Running:
    """A proxy that runs; `closing` closes its clients."""

    url: str
    sessions: Sessions
    upstream: Upstream
    closing: ExitStack

    @property
    def all(self) -> list[Session]:
        """Every session, the one used last first, when its turns are over."""
        found = list(reversed(self.sessions._used))
        deadline = time.monotonic() + 5
        while not all(session.is_idle for session in found):
            assert time.monotonic() < deadline, "a turn is not over"
            time.sleep(0.005)
        return found

    def client(self, key: str = "key-a", path: str = "/v1", **options: Any) -> openai.OpenAI:
        """An OpenAI client of it."""
        options = {"max_retries": 0, **options}
        made = openai.OpenAI(api_key=key, base_url=self.url + path, **options)
        return self.closing.enter_context(made)


Start = Callable[..., Running]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts proxies: upstream's address, policy, and what `Sessions` takes besides."""
    with ExitStack() as stack:

        def make(
            url: str,
            policy: Any = "truncate_older_than:n=1,max_chars=60",
            *,
            adapter: Any = "auto",
            timeout: float = 30.0,
            journal: Path | None = None,
            max_sessions: int = 512,
            **options: Any,
        ) -> Running:
            upstream = Upstream(url, timeout)
            sessions = Sessions(as_policy(policy), options, journal, max_sessions)  # type: ignore[arg-type]
            app = Proxy(upstream, Engine(upstream, adapter), sessions)
            return Running(stack.enter_context(served(app)), sessions, upstream, stack)

        yield make


@pytest.fixture
def proxy(start: Start, provider: Provider) -> Running:
    """A proxy of the provider that stubs all tool results but the last."""
    return start(provider.url)


TASK: list[Message] = [
    {"role": "system", "content": "You fix bugs."},
    {"role": "user", "content": "Fix the bug."},
]


@pytest.fixture
def task() -> list[Message]:
    return [dict(message) for message in TASK]


def _observed(messages: list[Message], reply: Message) -> list[Message]:
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": f"output of {call['id']} " * 20}
        for call in reply["tool_calls"]
    ]
    return [*messages, reply, *results]


@pytest.fixture
def observed() -> Callable[[list[Message], Message], list[Message]]:
    """The messages a harness sends next."""
    return _observed


@pytest.fixture
def outputs() -> Callable[[dict[str, Any]], list[str]]:
    """The tool results in a request."""
    return lambda request: [m["content"] for m in request["messages"] if m["role"] == "tool"]


@pytest.fixture
def turns() -> Callable[..., list[Message]]:
    """So many turns of an agent through an OpenAI client; its own messages are never edited."""

    def run(client: Any, messages: list[Message], count: int, **options: Any) -> list[Message]:
        for _ in range(count):
            reply = client.chat.completions.create(model="m", messages=messages, **options)
            message = reply.choices[0].message.model_dump(exclude_none=True)
            messages = _observed(messages, message)
        return messages

    return run
