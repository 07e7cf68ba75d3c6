"""Sampling against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_adapters.llama_cpp.sampling import Sampler, log_softmax
from leyline_agent.errors import EngineError

PROBS = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
LOGITS = np.log(PROBS).astype(np.float32)


def draws(sampler: Sampler, n: int) -> list[int]:
    return [sampler.sample(LOGITS) for _ in range(n)]


def test_greedy_takes_the_likeliest() -> None:
    assert draws(Sampler(temperature=0, seed=1), 3) == [0, 0, 0]


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 + 5])
def test_a_seed_repeats_itself(seed: int) -> None:
    assert draws(Sampler(seed=seed), 20) == draws(Sampler(seed=seed), 20)


def test_without_a_seed_every_request_is_its_own() -> None:
    assert draws(Sampler(), 50) != draws(Sampler(), 50)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies(temperature: float) -> None:
    n = 4_000
    tokens = draws(Sampler(temperature=temperature, seed=0), n)
    weights = PROBS ** (1 / temperature)
    for token, p in enumerate(weights / weights.sum()):
        assert abs(tokens.count(token) / n - p) < 4 * math.sqrt(p * (1 - p) / n)


@given(st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_hold_it(top_p: float) -> None:
    kept = set(draws(Sampler(top_p=top_p, seed=0), 200))
    before = np.concatenate([[0], PROBS.cumsum()[:-1]])
    assert kept <= {i for i in range(5) if before[i] < top_p + 1e-6}


def test_top_k() -> None:
    assert set(draws(Sampler(top_k=2, seed=0), 200)) == {0, 1}


def test_log_probs() -> None:
    told = Sampler().log_probs(LOGITS, 3, 2)
    assert told.chosen == pytest.approx(math.log(0.1))
    assert [token for token, _ in told.top] == [0, 1]
    assert Sampler().log_probs(LOGITS, 3, 0).top == ()
    assert np.exp(log_softmax(np.stack([LOGITS, LOGITS + 3]))).sum(-1) == pytest.approx([1, 1])


def test_logits_that_are_no_numbers() -> None:
    with pytest.raises(EngineError, match="not finite"):
        Sampler().sample(np.array([np.nan, 1.0], np.float32))
