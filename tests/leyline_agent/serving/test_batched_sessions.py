"""Eight edited sessions at once say what each of them says alone: the same tokens, in float32.

Each is a tenant of its own: KV shared by others would be spliced instead of computed, or the other
way round, and that may change what is said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from leyline_agent.directive import Mode
from leyline_agent.edit import sift
from leyline_agent.message import Message
from leyline_agent.policy import parse
from leyline_agent.readers import read
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.models.load import LoadedModel, load_model
from leyline_agent.trajectory import Trajectory

SESSIONS = 8
GENERATED = 24


@dataclass
class Played:
    """What a session came to: every version's tokens, what was generated, and logits."""

    said: list[Any] = field(default_factory=list)
    tokens: list[list[int]] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    spliced: int = 0


Play = Callable[[ChatService, int, Callable[[], Any]], Played]


def compare(make: Callable[[], ChatService], play: Play, atol: float = 1e-4) -> None:
    """One after the other, then all at once over a fresh service; the same must come of it."""
    alone = [play(service := make(), number, lambda: None) for number in range(SESSIONS)]
    del service
    service, sizes = make(), []
    scheduler, compute = service.scheduler, service.engine.compute

    def watched(batch: Sequence[Any]) -> None:
        while not sizes and scheduler.num_running + scheduler.num_waiting < SESSIONS:
            time.sleep(0.001)  # all of them begin with the first pass
        sizes.append(len(batch))
        compute(batch)

    service.engine.compute = watched  # type: ignore[method-assign]
    barrier = threading.Barrier(SESSIONS, timeout=300)
    with ThreadPoolExecutor(SESSIONS) as pool:
        together = list(pool.map(lambda n: play(service, n, barrier.wait), range(SESSIONS)))
    assert max(sizes) == SESSIONS
    for one, other in zip(alone, together, strict=True):
        assert (one.tokens, one.said) == (other.tokens, other.said)
        assert one.spliced == other.spliced > 0
        for left, right in zip(one.logits, other.logits, strict=True):
            torch.testing.assert_close(left, right, atol=atol * float(left.abs().max()), rtol=0)
    engine = service.engine
    for session in service.sessions:
        service.sessions.drop(session.tenant, session.id)
    with engine.exclusive():
        assert engine.pool.num_used == engine.forest.num_tokens


def generated(talk: Any, stub: Any, number: int, service: ChatService, meet: Any) -> Played:
    """Three turns that generate, the middle ones edited, then one whose reply is known."""
    one, played = talk(service, f"run-{number}", f"tenant-{number}"), Played()
    modes = [Mode.AMORTIZE, Mode.REPAIR, Mode.FORGET]
    for turn in range(3):
        meet()
        edits = []
        if turn:
            at = 2 + 2 * (turn - 1)
            edits = [stub(at, one.view, mode=modes[(number + turn) % 2])]
        text = f"error in line {number}: read the file again {turn}. " * (3 + number)
        request, messages = one.request(
            [{"role": "user", "content": text}], edits, max_tokens=GENERATED, temperature=0
        )
        answer = service.complete(request, one.tenant)
        one.took([*messages, answer["choices"][0]["message"]], answer["leyline"]["version"])
        played.tokens.append(list(one.sequence.tokens))
        played.spliced += answer["leyline"]["reused_spliced"]
    meet()
    _, logits = one.turn({"role": "user", "content": "and now?"}, reply="The tests run. " * 9)
    played.logits.append(logits)
    return played


@pytest.mark.parametrize("max_segments", [8, 1])
def test_sessions_that_generate(
    tiny_model: LoadedModel, talk: Any, stub: Any, max_segments: int
) -> None:
    config = EngineConfig(kv_bytes=32 << 20, chunk=256, max_segments=max_segments)

    def make() -> ChatService:
        return ChatService(Engine.of(tiny_model, config), "tiny", tiny_model.tokenizer)

    compare(make, lambda service, number, meet: generated(talk, stub, number, service, meet))


def recorded(
    talk: Any, path: Path, turns: int, chars: int, number: int, service: ChatService, meet: Any
) -> Played:
    """The first turns of a recorded run under a policy, each reply then generated once more."""
    run = list(read(path, limit=SESSIONS))[number].trajectory()
    policy = parse("truncate_older_than:n=1,max_chars=100")
    one, played = talk(service, f"run-{number}", f"tenant-{number}", view=[]), Played()
    places = [i for i, m in enumerate(run.messages) if m["role"] == "assistant" and i][:turns]
    seen = 0
    for place in places:
        meet()
        new = [_short(message, chars) for message in run.messages[seen:place]]
        before = Trajectory([*one.view, *new])
        edits, _ = sift(tuple(policy.edits(before)), before.messages)
        edits = [replace(edit, mode=Mode.AMORTIZE) for edit in edits]
        request, messages = one.request(new, edits)
        plain = request.model_copy(
            update={"leyline": None, "max_tokens": GENERATED, "temperature": 0.0}
        )
        receipt, logits = service.recorded(request, run.messages[place], one.tenant, score=True)
        assert logits is not None
        one.took([*messages, run.messages[place]], receipt.version)
        played.tokens.append(list(one.sequence.tokens))
        played.logits.append(logits)
        played.spliced += receipt.reused_spliced
        played.said.append(service.complete(plain, f"plain-{number}")["choices"])
        seen = place + 1
    return played


def _short(message: Message, chars: int) -> Message:
    content = message.get("content")
    return {**message, "content": content[:chars]} if isinstance(content, str) else message


def test_recorded_sessions(tiny_model: LoadedModel, trajectories_dir: Path, talk: Any) -> None:
    path = trajectories_dir / "trajectories" / "mini_swe_agent_pr_816.jsonl.gz"
    model = replace(tiny_model, max_len=1 << 16)

    def make() -> ChatService:
        return ChatService(
            Engine.of(model, EngineConfig(kv_bytes=96 << 20)), "tiny", model.tokenizer
        )

    compare(make, lambda s, n, meet: recorded(talk, path, 5, 600, n, s, meet))


@pytest.mark.slow
@pytest.mark.model
def test_recorded_sessions_with_the_embedded_model(
    embedded_gguf: Path, trajectories_dir: Path, talk: Any
) -> None:
    path = trajectories_dir / "trajectories" / "mini_swe_agent_pr_816.jsonl.gz"
    model = load_model(embedded_gguf, dtype="float32")

    def make() -> ChatService:
        config = EngineConfig(kv_bytes=3 << 30)
        return ChatService(Engine.of(model, config), "smollm2", model.tokenizer)

    compare(make, lambda s, n, meet: recorded(talk, path, 4, 1200, n, s, meet), atol=1e-3)
