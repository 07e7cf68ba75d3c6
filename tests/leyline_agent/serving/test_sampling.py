"""Sampling against its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.errors import EngineError
from leyline_agent.serving.sampling import Sampler, log_probs

PROBS = [0.5, 0.2, 0.15, 0.1, 0.05]
LOGITS = torch.tensor(PROBS).log()


def draws(sampler, n, logits=LOGITS):
    return [sampler.sample(logits) for _ in range(n)]


def test_greedy_takes_the_likeliest():
    logits = torch.tensor([0.1, 3.0, -1.0, 2.9])
    assert draws(Sampler(temperature=0, top_p=0.1, seed=1), 5, logits) == [1] * 5


def test_a_seed_repeats_itself():
    first = draws(Sampler(seed=7), 50)
    assert draws(Sampler(seed=7), 50) == first
    assert draws(Sampler(seed=8), 50) != first


def test_without_a_seed_every_request_is_its_own():
    assert draws(Sampler(), 50) != draws(Sampler(), 50)


def test_requests_do_not_disturb_each_other_or_the_global_state():
    alone = draws(Sampler(seed=3), 20)
    state = torch.get_rng_state()
    one, other = Sampler(seed=3), Sampler(seed=4)
    mixed = [(one.sample(LOGITS), other.sample(LOGITS))[0] for _ in range(20)]
    assert mixed == alone
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 + 5])
def test_any_integer_is_a_seed(seed):
    assert draws(Sampler(seed=seed), 10) == draws(Sampler(seed=seed), 10)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies(temperature):
    n = 8_000
    tokens = draws(Sampler(temperature=temperature, seed=0), n)
    weights = [p ** (1 / temperature) for p in PROBS]
    for token, weight in enumerate(weights):
        p = weight / sum(weights)
        assert abs(tokens.count(token) / n - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_top_k():
    assert set(draws(Sampler(top_k=2, seed=0), 200)) == {0, 1}
    assert set(draws(Sampler(top_k=1, seed=0), 20)) == {0}
    assert set(draws(Sampler(top_k=1000, seed=0), 500)) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1e-9, 1), (0.49, 1), (0.6, 2), (0.8, 3), (0.93, 4), (0.97, 5)]
)
def test_top_p(top_p, kept):
    assert set(draws(Sampler(top_p=top_p, seed=0), 500)) == set(range(kept))


def test_top_p_counts_within_top_k():
    # Of the two likeliest, the first holds 0.5 / 0.7 of what is left.
    assert set(draws(Sampler(top_k=2, top_p=0.7, seed=0), 100)) == {0}
    assert set(draws(Sampler(top_k=2, top_p=0.72, seed=0), 100)) == {0, 1}


def test_a_flat_vocabulary_is_cut_too():
    logits = torch.zeros(5_000)
    tokens = draws(Sampler(top_p=0.5, seed=0), 400, logits)
    assert max(tokens) < 2_500
    assert max(tokens) > 2_000


@given(
    st.lists(st.integers(-120, 120).map(lambda n: n / 4), min_size=1, max_size=12),
    st.floats(0.01, 5),
    st.floats(0.01, 1),
    st.integers(0, 14),
    st.integers(),
)
@settings(deadline=None)
def test_only_candidates_are_drawn(values, temperature, top_p, top_k, seed):
    token = Sampler(temperature, top_p, top_k, seed).sample(torch.tensor(values))
    likelier = sorted((v for v in values if v > values[token]), reverse=True)
    weights = [math.exp((v - max(values)) / temperature) for v in values]
    if top_k:
        assert len(likelier) < top_k
        weights = sorted(weights, reverse=True)[:top_k]
    mass = sum(math.exp((v - max(values)) / temperature) for v in likelier) / sum(weights)
    assert mass < top_p + 1e-6


def test_masked_tokens_are_never_drawn():
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0])
    assert set(draws(Sampler(seed=0), 100, logits)) == {1, 3}


@pytest.mark.parametrize("temperature", [1e-310, 1e-3, 1e30])
def test_extreme_temperatures(temperature):
    tokens = set(draws(Sampler(temperature=temperature, seed=0), 300))
    assert tokens == ({0} if temperature < 1 else {0, 1, 2, 3, 4})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes(dtype):
    assert draws(Sampler(seed=0, top_p=0.9), 20, LOGITS.to(dtype))


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize("bad", [[1.0, math.nan], [math.inf, 0.0], [-math.inf] * 2])
def test_broken_logits_are_told(temperature, bad):
    with pytest.raises(EngineError, match="not finite"):
        Sampler(temperature=temperature).sample(torch.tensor(bad))


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"temperature": math.nan}, "temperature.*nan"),
        ({"temperature": math.inf}, "temperature.*inf"),
        ({"top_p": 0.0}, "top_p.*0.0"),
        ({"top_p": 1.1}, "top_p.*1.1"),
        ({"top_p": math.nan}, "top_p.*nan"),
        ({"top_k": -1}, "top_k.*-1"),
    ],
)
def test_bad_parameters_are_named(parameters, named):
    with pytest.raises(EngineError, match=named):
        Sampler(**parameters)


def test_log_probs():
    found = log_probs(LOGITS + 3, token=2, k=2)
    assert found.chosen == pytest.approx(math.log(0.15), abs=1e-5)
    assert [token for token, _ in found.top] == [0, 1]
    assert [p for _, p in found.top] == pytest.approx([math.log(0.5), math.log(0.2)], abs=1e-5)


def test_log_probs_of_the_token_alone():
    assert log_probs(LOGITS, token=0).top == ()
    assert len(log_probs(LOGITS, token=0, k=99).top) == len(PROBS)
