"""Decode steps over memory that stays, against eager ones; captured only where a GPU is."""

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("triton", reason="Triton runs on Linux only")

from leyline_agent.directive import Directive, Mode  # noqa: E402
from leyline_agent.lowering import Lowered  # noqa: E402
from leyline_agent.serving.decode_graphs import DecodeGraphs, decode_graphs  # noqa: E402
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt  # noqa: E402
from leyline_agent.serving.executor import Work  # noqa: E402
from leyline_agent.serving.modes import ModeRules  # noqa: E402

CPU = torch.device("cpu")


@pytest.fixture
def engine(tiny_model, monkeypatch):
    monkeypatch.setenv("LEYLINE_KERNELS", "triton")
    rules = ModeRules(gate_tokens=0, gate_share=2.0)
    with np.errstate(all="ignore"):
        yield Engine.of(tiny_model, EngineConfig(kv_bytes=8 << 20, rules=rules))


def decode(engine, runs, steps):
    """Logits of so many joint steps, the next tokens fixed."""
    result = []
    for step in range(steps):
        batch = []
        for at, run in enumerate(runs):
            run.sequence.extend([40 + 7 * at + step])
            batch.append(Work(run.sequence, np.array([len(run.sequence) - 1])))
        result.append(torch.stack([c.logits for c in engine.executor.forward(batch)]))
    return torch.stack(result)


def runs_of(engine):
    """A plain sequence and one that was cut."""
    tokens = [3 + i * 7 % 300 for i in range(60)]
    plain = engine.start(Prompt(tokens[:23], "plain"))
    base = engine.start(Prompt(list(tokens), "base")).finish()
    cut = Directive(10, 30, (5,), Mode.AMORTIZE)
    new = [*tokens[:10], 5, *tokens[30:], 9, 9]
    prompt = Prompt(new, "cut", base, [Lowered(cut, (0,), cut.mode)], 2, version=2)
    return [plain, engine.start(prompt)]


class Counted(DecodeGraphs):
    """Counts the steps that need not be run eagerly."""

    done = 0

    def step(self, batch, tokens):
        logits = super().step(batch, tokens)
        self.done += logits is not None
        return logits


def with_graphs(engine):
    executor = engine.executor
    executor.graphs = Counted(executor.compute, executor.backend, CPU, capture=False)
    return executor.graphs


def test_a_step_over_memory_that_stays_is_a_step(engine):
    expected = decode(engine, runs_of(engine), 2)
    runs = runs_of(engine)
    graphs = with_graphs(engine)
    out = decode(engine, runs, 2)
    assert graphs.done == 2
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_run_eagerly(engine, monkeypatch):
    expected = decode(engine, runs_of(engine), 1)
    runs = runs_of(engine)
    monkeypatch.setattr("leyline_agent.serving.decode_graphs.BUCKETS", (1,))
    graphs = with_graphs(engine)
    torch.testing.assert_close(decode(engine, runs, 1), expected, atol=1e-4, rtol=1e-4)
    assert graphs.done == 0


@pytest.mark.gpu
def test_a_captured_step_is_a_step(tiny_folder, monkeypatch):
    """The only test of capture itself: it needs a GPU."""
    monkeypatch.setenv("LEYLINE_CUDA_GRAPHS", "1")
    from leyline_agent.serving.models.load import load_model

    model = load_model(tiny_folder, dtype="float32", device="cuda")
    rules = ModeRules(gate_tokens=0, gate_share=2.0)
    engine = Engine.of(model, EngineConfig(kv_bytes=8 << 20, rules=rules))
    graphs, engine.executor.graphs = engine.executor.graphs, None
    expected = decode(engine, runs_of(engine), 4)
    runs = runs_of(engine)
    engine.executor.graphs = graphs
    torch.testing.assert_close(decode(engine, runs, 4), expected, atol=1e-3, rtol=1e-3)
    assert not graphs.failed


def test_graphs_are_for_dense_models_on_a_gpu(engine, monkeypatch):
    class Layer(nn.Module):
        def __init__(self, name):
            super().__init__()
            self.add_module(name, nn.Linear(2, 2))

    backend, gpu = engine.executor.backend, torch.device("cuda")
    assert engine.executor.graphs is None
    assert decode_graphs(print, Layer("mlp"), backend, gpu) is None
    monkeypatch.setenv("LEYLINE_CUDA_GRAPHS", "1")
    assert decode_graphs(print, Layer("mlp"), backend, gpu) is not None
    assert decode_graphs(print, Layer("experts"), backend, gpu) is None
    assert decode_graphs(print, Layer("mlp"), object(), gpu) is None
