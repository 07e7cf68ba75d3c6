"""Backends: where an episode's model runs, and how each mechanism is had there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from leyline_agent.adapter import Adapter
from leyline_agent.testing.model import Reply
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.episode import Call
from leyline_evals.solve.errors import EvalError

__all__ = [
    "BUNDLED",
    "LLAMA_CPP",
    "SCRIPTED",
    "Backend",
    "Channel",
    "ModelConfig",
    "Price",
    "check",
    "connect",
]

SCRIPTED = "scripted"
BUNDLED = "bundled"
LLAMA_CPP = "llama_cpp"
PLAIN_WAYS = ("cache_salt", "cache_prompt", "tenant")


class Price(BaseModel):
    """Dollars a million tokens: of prompts computed, of prompts read from a cache, of replies."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: float = Field(ge=0, allow_inf_nan=False)
    cached: float = Field(ge=0, allow_inf_nan=False)
    reply: float = Field(ge=0, allow_inf_nan=False)


class ModelConfig(BaseModel):
    """Which model is asked, and how.

    Attributes:
        name: `scripted`; `bundled` or `bundled/NAME` for the engine in this process,
            `llama_cpp/NAME` for llama.cpp there; else a litellm name, or a server's.
        base_url: an OpenAI-compatible server.
        adapter: what speaks to that server: "openai", "http" for a `leyline serve`, ...
        plain: how `base_url`'s prefix cache is got around: a field of the body that it knows
            ("cache_salt": vLLM, "cache_prompt": llama.cpp), or a "tenant" a call (`leyline serve`).
        temperature, top_p: of every call; None leaves it to the model's side.
        kv_gib: memory for keys and values of the bundled engine.
        cells: tokens that llama.cpp holds for each worker, an episode's context; None for 8,192,
            or what the model was trained for where that is less.
        price: where the provider's is not known.
        recall: let the model see again what policies cut.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    base_url: str | None = None
    adapter: str = "openai"
    plain: str | None = None
    temperature: float | None = Field(0.7, ge=0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    kv_gib: float = Field(4.0, gt=0, allow_inf_nan=False)
    cells: int | None = Field(None, ge=1)
    price: Price | None = None
    recall: bool = False


@dataclass(frozen=True)
class Channel:
    """One episode's way to the model.

    Attributes:
        adapter: the session's; None for plain OpenAI requests.
        call: makes the calls.
        close: gives up what the episode held.
    """

    adapter: Adapter | None
    call: Call
    close: Callable[[], None] = field(default=lambda: None)


class Backend(Protocol):
    """Where models run. Thread-safe."""

    def open(self, mechanism: Mechanism, tenant: str, script: Sequence[Reply]) -> Channel:
        """A way to the model for one episode; no other tenant's cache serves it."""
        ...

    def versions(self) -> dict[str, str]:
        """What serves the model, by name."""
        ...


def connect(model: ModelConfig, workers: int) -> AbstractContextManager[Backend]:
    """The backend of a model, loaded; it is closed behind the block.

    Raises:
        EvalError: the settings do not fit.
        EngineError: the model cannot be fetched or served.
    """
    if model.name == SCRIPTED and model.base_url is None:
        from leyline_evals.solve.scripted import Scripted

        return Scripted()
    if is_in_process(model):
        from leyline_evals.solve import in_process

        return in_process.load(model, workers)
    from leyline_evals.solve.remote import Remote

    return Remote(model)


def check(model: ModelConfig, mechanisms: Iterable[Mechanism]) -> None:
    """That a model can be asked by these mechanisms; nothing is loaded or called.

    Raises:
        EvalError: the settings do not fit, or a mechanism cannot be had.
        AdapterError: there is no such adapter.
    """
    if model.plain is not None and model.plain not in PLAIN_WAYS:
        raise EvalError(f"--plain {model.plain}: one of {', '.join(PLAIN_WAYS)}")
    if model.base_url is None and (model.adapter != "openai" or model.plain is not None):
        raise EvalError("--adapter and --plain are for a server; name it with --base-url")
    if is_in_process(model) or model.name == SCRIPTED:
        return
    from leyline_evals.solve.remote import Remote

    remote = Remote(model)
    for mechanism in mechanisms:
        remote.check(mechanism)


def is_in_process(model: ModelConfig) -> bool:
    """Whether an engine in this process serves it."""
    return model.name.partition("/")[0] in (BUNDLED, LLAMA_CPP) and model.base_url is None
