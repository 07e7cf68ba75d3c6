"""`/v1/models` and `/health`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from leyline_agent.directive import Mode
from leyline_agent.receipt import Reason
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.modes import ModeRules
from leyline_agent.serving.repair import RepairConfig
from leyline_agent.serving.server import create_app

BODY = {"messages": [{"role": "user", "content": "Read the file again."}], "max_tokens": 4}


async def about(service: ChatService) -> dict[str, object]:
    transport = httpx.ASGITransport(app=create_app(service))
    async with httpx.AsyncClient(transport=transport, base_url="http://leyline") as client:
        [model] = (await client.get("/v1/models")).json()["data"]
    return model


async def test_the_model_is_listed(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert body["object"] == "list"
    [model] = body["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("tiny", "model", 4096)
    told = model["leyline"]
    assert told["context_length"] == 4096
    assert told["dtype"] == "float32"
    assert told["modes"] == ["amortize", "repair", "forget"]
    assert told["repair"]["window"] == 16
    assert told["tools"] == "fallback"
    assert told["splice"] == {"supported": True, "reason": None, "detail": ""}
    assert (await client.get("/v1/models/tiny")).json() == model
    missing = await client.get("/v1/models/else")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_a_floor_and_a_refusal_are_told(tiny_model: LoadedModel) -> None:
    rules, repair = ModeRules(floor=Mode.REPAIR), RepairConfig(window=4)
    config = EngineConfig(kv_bytes=8 << 20, rules=rules, repair=repair)
    service = ChatService(Engine.of(tiny_model, config), "tiny", tiny_model.tokenizer)
    told = (await about(service))["leyline"]
    assert told["modes"] == ["repair", "forget"]
    assert told["mode_floor"] == "repair"
    assert told["repair"]["window"] == 4

    facts = replace(tiny_model.facts, rope=None, refusal=Reason.ROPE_KIND, detail="none at all")
    refusing = replace(tiny_model, facts=facts)
    service = ChatService(Engine.of(refusing, config), "tiny", tiny_model.tokenizer)
    told = (await about(service))["leyline"]
    assert told["modes"] == ["forget"]
    assert told["splice"] == {"supported": False, "reason": "rope_kind", "detail": "none at all"}


async def test_health_counts(tiny_service: ChatService, client: httpx.AsyncClient) -> None:
    empty = (await client.get("/health")).json()
    assert empty["status"] == "ok"
    assert empty["model"] == "tiny"
    assert (empty["sessions"], empty["tree_tokens"], empty["pool"]["used"]) == (0, 0, 0)
    pool = empty["pool"]
    assert pool["free"] == pool["slots"] == tiny_service.engine.pool.num_slots
    assert pool["bytes"] == pool["slots"] * pool["bytes_per_token"] <= 8 << 20
    commit = {"session": "run"}
    await client.post("/v1/chat/completions", json={**BODY, "leyline": commit})
    after = (await client.get("/health")).json()
    assert after["sessions"] == 1
    assert after["tree_tokens"] == after["pool"]["used"] > 0
    assert after["pool"]["used"] + after["pool"]["free"] == pool["slots"]


@pytest.mark.usefixtures("endless")
async def test_health_does_not_wait_for_the_engine(client: httpx.AsyncClient) -> None:
    long = {**BODY, "max_tokens": 300}
    busy = asyncio.create_task(client.post("/v1/chat/completions", json=long))
    answers = []
    while not busy.done():
        answers.append((await client.get("/health")).json())
    assert (await busy).json()["usage"]["completion_tokens"] == 300
    assert len(answers) > 5
    assert max(answer["in_flight"] for answer in answers) == 1
    assert answers[-1]["pool"]["used"] > answers[0]["pool"]["used"]
