"""Where models run: the engine in this process, a `leyline serve`, OpenAI-compatible servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from llama_cells import SimulatedModel
from solve_episodes import check_mechanisms, episode

from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter
from leyline_adapters.llama_cpp.host import HostConfig, LlamaHost
from leyline_agent.adapter import Request
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.testing import DeterministicModel
from leyline_agent.testing.model import Reply, chunks
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.backend import Channel, ModelConfig, check
from leyline_evals.solve.episode import Heard
from leyline_evals.solve.errors import EvalError, LimitReached, ModelFailed
from leyline_evals.solve.in_process import InProcess
from leyline_evals.solve.remote import Remote
from leyline_evals.solve.scripted import Scripted

# litellm's own, of pydantic and of event loops.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@dataclass(frozen=True)
class Given:
    """A backend with one channel."""

    channel: Channel

    def open(self, mechanism: Mechanism, tenant: str, script: Sequence[Reply]) -> Channel:
        return self.channel

    def versions(self) -> dict[str, str]:
        return {}


def bundled(service: ChatService) -> InProcess:
    """The backend over the tiny model."""
    return InProcess(service, BundledAdapter, {"bundled": "1"})


def test_the_bundled_engine_does_every_mechanism_at_once_and_keeps_nothing(
    tiny_service: ChatService,
) -> None:
    with bundled(tiny_service) as backend:
        with ThreadPoolExecutor(5) as pool:
            played = pool.map(lambda name: episode(backend, name, f"run/{name.value}"), Mechanism)
            found = dict(zip(Mechanism, played, strict=True))
        assert backend.versions() == {"model": "tiny", "bundled": "1"}
    check_mechanisms(found)
    assert all(step.ttft_ms for steps in found.values() for step in steps)
    engine = tiny_service.engine
    assert isinstance(engine, Engine)
    assert engine.forest.num_tokens == 0
    assert engine.pool.num_used == 0
    assert not list(tiny_service.sessions)


def test_edits_of_an_evicted_session_were_not_spliced(tiny_service: ChatService) -> None:
    """The engine tells of no edit then, and the session of the mode that it sent."""
    with bundled(tiny_service) as backend:
        channel = backend.open(Mechanism.REPAIR, "evicted", ())

        def evicting(request: Request) -> Heard:
            for session in tiny_service.sessions:
                for version in session.versions.values():
                    version.evict()
            return channel.call(request)

        steps = episode(
            Given(replace(channel, call=evicting)), Mechanism.REPAIR, "evicted", num_lines=30
        )
    assert [step.modes for step in steps] == [{}, {}, {"forget": 1}]
    assert [step.reasons for step in steps] == [{}, {}, {"evicted": 1}]


def test_llama_cpp_does_every_mechanism_at_once(tiny_model: LoadedModel) -> None:
    """Over simulated cells; over llama.cpp's own in tests/llama_cpp."""
    model = SimulatedModel(num_cells=5 * 1024)
    host = LlamaHost(model, HostConfig(max_batch=5, tapes=20))
    service = ChatService(host, "simulated", tiny_model.tokenizer)
    with InProcess(service, LlamaCppAdapter, {}) as backend, ThreadPoolExecutor(5) as pool:
        played = pool.map(lambda name: episode(backend, name, f"run/{name.value}"), Mechanism)
        check_mechanisms(dict(zip(Mechanism, played, strict=True)))
    assert host.num_used == 0
    assert not model.table


def test_no_episode_profits_from_another(tiny_service: ChatService) -> None:
    with bundled(tiny_service) as backend:
        first = backend.open(Mechanism.PREFIX_CACHE, "one", ())
        messages = [{"role": "user", "content": "the same beginning " * 5}]
        asked = {"messages": messages, "max_tokens": 1}
        first.call(asked)
        second = backend.open(Mechanism.PREFIX_CACHE, "two", ())
        usage = second.call(asked).response["usage"]
        assert usage["prompt_tokens_details"]["cached_tokens"] == 0


def test_a_full_context_is_a_limit_of_the_episode(tiny_service: ChatService) -> None:
    with (
        bundled(tiny_service) as backend,
        pytest.raises(LimitReached, match=r"context|fit") as reached,
    ):
        episode(backend, Mechanism.PLAIN, "long", num_lines=1000)
    assert reached.value.limit == "context"


def test_a_leyline_serve_does_every_mechanism(live_url: str) -> None:
    with Remote(ModelConfig(name="tiny", base_url=live_url, adapter="http")) as backend:
        found = {name: episode(backend, name, f"run/{name.value}") for name in Mechanism}
    check_mechanisms(found)
    assert all(step.ttft_ms for steps in found.values() for step in steps)


def test_the_scripted_model_does_every_mechanism() -> None:
    script = [f"reply {n} " + "word " * 30 for n in range(4)]
    with Scripted() as backend:
        found = {name: episode(backend, name, name.value, script) for name in Mechanism}
    check_mechanisms(found)


@contextmanager
def streaming(model: DeterministicModel, seen: list[dict[str, Any]]) -> Iterator[str]:
    """An OpenAI-compatible server that streams, whose cache a body's fields get around."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.append(body)
            made = model.complete(body)
            if body.get("cache_prompt") is False:
                made["usage"]["prompt_tokens_details"]["cached_tokens"] = 0
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks(made)]
            payload = "".join([*lines, "data: [DONE]\n\n"]).encode()
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_an_openai_compatible_server_through_litellm() -> None:
    seen: list[dict[str, Any]] = []
    script = [f"reply {n}" for n in range(4)]
    with streaming(DeterministicModel(*script, repeat=True), seen) as url:
        config = ModelConfig(name="coder", base_url=f"{url}/v1", plain="cache_prompt")
        with Remote(config) as backend:
            cached = episode(backend, Mechanism.PREFIX_CACHE, "a")
            plain = episode(backend, Mechanism.PLAIN, "b")
    assert [step.completion > 0 for step in cached] == [True] * 3
    assert all(step.exact for step in cached[1:])
    assert all(step.exact == 0 and step.prefilled == step.prompt for step in plain)
    assert all(step.ttft_ms and step.cost is None for step in cached)
    assert {body["model"] for body in seen} == {"coder"}
    assert [body.get("cache_prompt") for body in seen] == [None] * 3 + [False] * 3
    assert [body["seed"] for body in seen[:3]] == [1, 2, 3]


def test_a_cache_that_cannot_be_got_around_is_found_out() -> None:
    with streaming(DeterministicModel("a", "b", "c", repeat=True), []) as url:
        config = ModelConfig(name="coder", base_url=url, plain="cache_salt")
        with Remote(config) as backend, pytest.raises(ModelFailed, match="came from the server's"):
            episode(backend, Mechanism.PLAIN, "a")


def test_a_server_that_is_not_there_fails_the_episode() -> None:
    config = ModelConfig(name="coder", base_url="http://127.0.0.1:9", adapter="http")
    with Remote(config) as backend, pytest.raises(ModelFailed, match="EngineUnavailable"):
        episode(backend, Mechanism.PREFIX_CACHE, "a")


@pytest.mark.parametrize(
    ("model", "mechanism", "says"),
    [
        ({"name": "gpt-5"}, "plain", "prefix cache of gpt-5 cannot be got around"),
        ({"name": "gpt-5"}, "repair", "gpt-5 takes no edits"),
        ({"name": "x", "base_url": "http://h"}, "amortize", "--adapter http for a leyline serve"),
        ({"name": "x", "base_url": "http://h", "plain": "tenant"}, "plain", "other servers know"),
    ],
)
def test_a_mechanism_that_cannot_be_had_is_told(
    model: dict[str, Any], mechanism: str, says: str
) -> None:
    with pytest.raises(EvalError, match=says):
        check(ModelConfig(**model), [Mechanism(mechanism)])


def test_mechanisms_that_can_be_had_are_taken() -> None:
    served = ModelConfig(name="x", base_url="http://h", adapter="http")
    for model in (
        ModelConfig(name="scripted"),
        ModelConfig(name="bundled/x"),
        ModelConfig(name="llama_cpp"),
        served,
    ):
        check(model, Mechanism)
    check(ModelConfig(name="gpt-5"), [Mechanism.PREFIX_CACHE])


def test_prices_of_providers_are_litellms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    response = {
        "choices": [],
        "usage": {
            "prompt_tokens": 1000,
            "completion_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 600},
        },
    }
    known = Remote(ModelConfig(name="gpt-4o"))._cost(response)
    assert known == pytest.approx((400 * 2.5 + 600 * 1.25 + 10 * 10) / 1e6)
    assert Remote(ModelConfig(name="nobody/knows"))._cost(response) is None
