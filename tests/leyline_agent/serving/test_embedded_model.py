"""The engine on the embedded model, computed in float32: against transformers, and end to end."""

import copy
from dataclasses import replace

import pytest
import torch
from engine_cases import assert_close

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.lowering import Lowered
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.models.load import load_model
from leyline_agent.serving.models.probe import probe
from leyline_agent.serving.wire import ChatRequest

pytestmark = pytest.mark.model

TEXT = """\
$ pytest -q
FAILED tests/test_cache.py::test_eviction - AssertionError: assert 3 == 2
The cache keeps one entry too many when two keys share a hash. Look at cache.py, line 41: the
comparison is made before the counter is increased. Change it, and run the tests again.
"""


@pytest.fixture(scope="module")
def smollm(embedded_gguf):
    loaded = load_model(embedded_gguf)
    loaded.model.float()
    return replace(loaded, dtype=torch.float32, facts=probe(loaded.model))


@pytest.fixture(scope="module")
def tokens(smollm):
    return smollm.tokenizer.encode(TEXT * 3)


@pytest.fixture(scope="module")
def expected(smollm, tokens):
    reference = copy.deepcopy(smollm.model)
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        return reference(torch.tensor([tokens])).logits[0]


@pytest.fixture
def engine(smollm):
    return Engine.of(smollm, EngineConfig(kv_bytes=256 << 20, chunk=64))


def test_prefill_and_decode_equal_transformers(engine, tokens, expected):
    run = engine.start(Prompt(tokens[:-4]))
    assert_close(run.logits, expected[-5])
    for place in (-4, -3, -2, -1):
        assert_close(run.step(tokens[place]), expected[place])


def test_forget_equals_transformers(engine, tokens, expected):
    middle = len(tokens) // 3
    longer = [*tokens[:middle], *tokens[5:25], *tokens[middle:]]
    base = engine.start(Prompt(longer)).finish()
    cut = Directive(middle, middle + 20, (), Mode.FORGET)
    assert apply(longer, [cut]) == tokens
    run = engine.start(Prompt(list(tokens), "", base, [Lowered(cut, (0,), cut.mode)], version=2))
    assert run.receipt.reused_exact == middle
    assert_close(run.logits, expected[-1])


def test_amortize_is_near_to_honest_and_without_rotation_it_is_not(engine, tokens, expected):
    """The keys behind the edit stand where they should."""
    first, last = len(tokens) // 3, 24
    longer = [*tokens[:first], *tokens[:60], *tokens[first:-last]]
    base = engine.start(Prompt(longer)).finish()
    cut = Directive(first, first + 60, (), Mode.AMORTIZE)
    apart = []
    for rotate in (True, False):
        items = [Lowered(cut, (0,), cut.mode)]
        run = engine.start(Prompt(tokens[:-last], "spliced", base, items, version=2))
        assert run.receipt.reused_spliced > len(tokens) // 2
        if not rotate:
            run.sequence.segments = [s._replace(offset=0) for s in run.sequence.segments]
        logits = run.score(tokens[-last:])
        apart.append(mean_kl(expected[-last:-1], logits[1:]))
    near, far = apart
    assert near < 0.1
    assert far > 10 * near


def mean_kl(honest, other):
    honest, other = honest.log_softmax(-1), other.log_softmax(-1)
    return float((honest.exp() * (honest - other)).sum(-1).mean())


def test_a_chat(smollm, engine):
    service = ChatService(engine, "smollm", smollm.tokenizer)
    question = {"role": "user", "content": "What is the capital of France?"}
    answer = service.complete(ChatRequest(messages=[question], temperature=0, max_tokens=12))
    [choice] = answer["choices"]
    assert "Paris" in choice["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 12
