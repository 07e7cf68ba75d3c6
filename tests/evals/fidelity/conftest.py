"""A small case of a recorded run, a bench with the tiny model, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from leyline_agent.serving.models.load import LoadedModel
    from leyline_agent.serving.render import ChatRenderer
    from leyline_evals.fidelity.bench import Bench
    from leyline_evals.fidelity.cases import Case
    from leyline_evals.fidelity.records import Config, Selection


@pytest.fixture(scope="session")
def chat(tiny_model: LoadedModel) -> ChatRenderer:
    """The tiny model's renderer."""
    from leyline_agent.serving.render import ChatRenderer

    return ChatRenderer(tiny_model.tokenizer)


@pytest.fixture
def bench(tiny_model: LoadedModel) -> Iterator[Bench]:
    """An empty bench; afterwards nothing but its base may hold a slot."""
    from leyline_agent.serving.engine import Engine, EngineConfig
    from leyline_evals.fidelity.bench import Bench

    made = Bench(Engine.of(tiny_model, EngineConfig(kv_bytes=16 << 20)))
    yield made
    made.prefill([3])
    assert made.engine.pool.num_used == 1


@pytest.fixture
def selection() -> Selection:
    """Edits of runs as small as the tests' own."""
    from leyline_evals.fidelity.records import Selection

    return Selection(
        tokens=(100, 3000), cut=20, suffix=40, continuation=6, least_continuation=2, generated=2
    )


@pytest.fixture
def config(selection: Selection) -> Config:
    """How the tests measure."""
    from leyline_evals.fidelity.records import Config

    arms = {"amortize": "amortize", "repair": "window=16,echo=256,tail=128"}
    return Config(model="tiny", arms=arms, selection=selection, calls=2, call_tokens=4)


@pytest.fixture
def cases(runs_file: Callable[..., Path], chat: ChatRenderer, selection: Selection) -> list[Case]:
    """The edits of some runs."""
    from leyline_evals.fidelity.recorded import recorded_cases

    return list(recorded_cases([runs_file(9, 12, 7, chars=500)], chat, selection))
