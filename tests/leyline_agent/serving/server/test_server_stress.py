"""Many agents on a pool too small for them, some hang up: nothing breaks, nothing leaks."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import httpx
import pytest

from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.load import LoadedModel

CHAT = "/v1/chat/completions"
WORDS = ("error in line ", "list the folder ", "read the file ")
TURNS = 10


@pytest.fixture
def tiny_service(tiny_model: LoadedModel) -> ChatService:
    """A pool of little more than one context, prompts in small chunks, no end of turn."""
    config = EngineConfig(kv_bytes=9 << 19, chunk=128)
    service = ChatService(Engine.of(tiny_model, config), "tiny", tiny_model.tokenizer)
    service.chat.stop_ids = frozenset()
    return service


class Agent:
    """One conversation that grows, is edited at random and is sometimes abandoned."""

    def __init__(self, url: str, number: int, seen: Counter[Any]) -> None:
        self.random = random.Random(number)
        self.seen = seen
        self.id = f"agent-{number}"
        self.version = 0
        self.view: list[dict[str, Any]] = []
        token = {"Authorization": f"Bearer {number % 2}"}
        self.client = httpx.AsyncClient(base_url=url, headers=token, timeout=60)

    async def run(self) -> None:
        async with self.client:
            for _ in range(TURNS):
                await self.random.choice((self.turn, self.turn, self.turn, self.hang_up))()

    def body(self, **more: Any) -> dict[str, Any]:
        """The next request; the view is not changed yet."""
        view, edits = list(self.view), []
        users = [i for i, message in enumerate(view) if message["role"] == "user"]
        if users and self.random.random() < 0.7:
            at = self.random.choice(users)
            view[at] = {"role": "user", "content": f"[removed {self.random.random()}]"}
            redact = self.random.random() < 0.2
            mode = "forget" if redact else self.random.choice(["amortize", "repair", "forget"])
            edits = [{"messages": [at, at + 1], "count": 1, "mode": mode, "redact": redact}]
        text = self.random.choice(WORDS) * self.random.randint(1, 60)
        commit = {"session": self.id, "base_version": self.version, "version": self.version + 1}
        return {
            "messages": [*view, {"role": "user", "content": text}],
            "leyline": {**commit, "edits": edits},
            **more,
        }

    async def turn(self) -> None:
        body = self.body(max_tokens=self.random.randint(1, 30))
        response = await self.client.post(CHAT, json=body)
        self.seen[response.status_code] += 1
        if response.status_code != 200:
            return
        receipt = Receipt.model_validate(response.json()["leyline"])
        self.seen["spliced"] += receipt.reused_spliced > 0
        self.seen[receipt.reason.value] += 1
        self.version += 1
        self.view = [*body["messages"], response.json()["choices"][0]["message"]]

    async def hang_up(self) -> None:
        body = self.body(stream=True, max_tokens=500)
        async with self.client.stream("POST", CHAT, json=body) as response:
            self.seen[response.status_code] += 1
            self.seen["hung up"] += 1
            lines = response.aiter_lines()
            for _ in range(self.random.randint(0, 6)):
                await anext(lines)
            await response.aclose()


def test_nothing_breaks_and_nothing_leaks(live_url: str, tiny_service: ChatService) -> None:
    seen: Counter[Any] = Counter()

    async def all_at_once() -> None:
        await asyncio.gather(*(Agent(live_url, number, seen).run() for number in range(8)))

    asyncio.run(all_at_once())
    assert {key for key in seen if isinstance(key, int)} <= {200, 503}
    assert seen[200] > 40
    assert min(seen["spliced"], seen["hung up"], seen["evicted"]) > 0  # it was worth trying
    while httpx.get(f"{live_url}/health").json()["in_flight"]:
        pass
    for session in tiny_service.sessions:
        tiny_service.sessions.drop(session.tenant, session.id)
    with tiny_service.exclusive():
        engine = tiny_service.engine
        assert engine.pool.num_used == engine.forest.num_tokens
