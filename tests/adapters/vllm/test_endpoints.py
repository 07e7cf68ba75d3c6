"""The plug-in: what it adds to a stream, to whose, and that it leaves all else alone."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from leyline_adapters.vllm.endpoints import LeylineEndpoints
from leyline_adapters.vllm.wire import KEY, PROTOCOL

CHUNK = 'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n'


class Engine:
    """What the plug-in is given as vLLM's client of the engine."""

    def __init__(self) -> None:
        self.closed = 0

    async def generate(self, name: str) -> AsyncIterator[Any]:
        try:
            for at in range(3):
                await asyncio.sleep(0)
                params = {KEY: {"handle": name}, "other": 1} if at == 2 and name else None
                yield SimpleNamespace(text="hi", kv_transfer_params=params)
        finally:
            self.closed += 1


async def application(engine: Engine) -> FastAPI:
    """A server as vLLM makes one, with the plug-in."""
    app = FastAPI()
    transfer = SimpleNamespace(kv_connector="LeylineConnector")
    app.state.args = Namespace(kv_transfer_config=transfer)

    async def events(name: str) -> AsyncIterator[str]:
        async for _ in app.state.engine.generate(name):
            yield CHUNK
        yield "data: [DONE]\n\n"

    @app.post("/v1/chat/completions")
    async def chat(name: str = "") -> StreamingResponse:
        return StreamingResponse(events(name), media_type="text/event-stream")

    @app.post("/v1/completions")
    async def completions(name: str = "") -> StreamingResponse:
        return StreamingResponse(events(name), media_type="text/event-stream")

    plugin = LeylineEndpoints()
    plugin.attach_router(app)
    app.state.engine = engine
    await plugin.init_state(engine, app.state, app.state.args)
    return app


async def streams(*paths: str) -> tuple[list[list[str]], Engine]:
    """The events of streams read at once."""
    engine = Engine()
    transport = httpx.ASGITransport(app=await application(engine))
    async with httpx.AsyncClient(transport=transport, base_url="http://vllm") as client:
        answers = await asyncio.gather(*(client.post(path) for path in paths))
    return [[line for line in answer.text.splitlines() if line] for answer in answers], engine


async def test_each_stream_ends_with_what_was_told_of_it() -> None:
    found, engine = await streams(*(f"/v1/chat/completions?name=h{i}" for i in range(5)))
    for number, lines in enumerate(found):
        assert lines[:3] == [CHUNK.strip()] * 3
        told = json.loads(lines[3].removeprefix("data: "))
        assert told[KEY] == {"handle": f"h{number}"}
        assert told["choices"] == []
        assert lines[4:] == ["data: [DONE]"]
    assert engine.closed == 5


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions?name=h"])
async def test_other_streams_are_as_they_were(path: str) -> None:
    ((*chunks, last),), _ = await streams(path)
    assert chunks == [CHUNK.strip()] * 3
    assert last == "data: [DONE]"


async def test_it_says_who_is_there() -> None:
    transport = httpx.ASGITransport(app=await application(Engine()))
    async with httpx.AsyncClient(transport=transport, base_url="http://vllm") as client:
        found = (await client.get("/v1/leyline")).json()
    assert (found["protocol"], found["connector"]) == (PROTOCOL, "LeylineConnector")


async def test_a_reader_that_leaves_stops_the_engine() -> None:
    engine = Engine()
    await LeylineEndpoints().init_state(engine, None, Namespace())
    outputs = engine.generate("h")
    await anext(outputs)
    await outputs.aclose()  # type: ignore[attr-defined]
    assert engine.closed == 1


async def test_a_server_that_only_renders_has_no_engine() -> None:
    await LeylineEndpoints().init_state(None, None, Namespace())
