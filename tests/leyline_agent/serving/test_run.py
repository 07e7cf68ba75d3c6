"""Runs: chunk by chunk, by turns, failing on the way, and leaving nothing behind."""

import numpy as np
import pytest

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import ContextOverflow, EngineError, InvalidRequest, OutOfSlots
from leyline_agent.lowering import Lowered
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.modes import ModeRules

NO_GATE = ModeRules(gate_tokens=0, gate_share=2.0)


def tokens(n, seed=0):
    return [2 + (i * 37 + seed * 11) % 390 for i in range(n)]


@pytest.fixture
def make(tiny_model):
    def make(num_slots=2000, **config):
        size = 2 * 2 * 2 * 16 * 4
        return Engine.of(
            tiny_model, EngineConfig(kv_bytes=2 * num_slots * size, rules=NO_GATE, **config)
        )

    return make


@pytest.fixture
def plain(make):
    return lambda prompt: make().start(Prompt(list(prompt))).logits


def close(found, expected):
    return (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def empty(engine):
    """Whether nothing is left once the tree is evicted."""
    engine.forest.evict(engine.pool.num_slots)
    return engine.pool.num_used == 0


class Broken(Exception):
    pass


def break_at(engine, monkeypatch, call):
    """Let the given layer call from now on fail, after keys were partly stored."""
    backend, calls = engine.executor.backend, iter(range(1_000_000))
    attend = backend.attend

    def failing(*args):
        if next(calls) == call:
            raise Broken
        return attend(*args)

    monkeypatch.setattr(backend, "attend", failing)


def test_chunk_by_chunk(make, plain):
    engine = make(chunk=40)
    run = engine.open(Prompt(tokens(150)))
    with pytest.raises(EngineError, match="not computed yet"):
        run.step(5)
    with pytest.raises(EngineError, match="not computed yet"):
        run.finish()
    chunks = 0
    while len(run.pending):
        assert run.receipt.ttft_ms is None
        run.prefill()
        chunks += 1
    assert chunks == 4
    assert run.receipt.ttft_ms > 0
    assert close(run.logits, plain(tokens(150)))


@pytest.mark.parametrize("max_segments", [8, 0])
def test_runs_taking_turns(make, plain, max_segments):
    """Chunks and steps of two prompts in any order, one of them edited, over one working copy."""
    engine = make(chunk=40, max_segments=max_segments)
    base = engine.start(Prompt(tokens(200), "a")).finish()
    cut = Directive(20, 70, (5, 6), Mode.FORGET)
    prompt = [*apply(base.tokens, [cut]), *tokens(50, 3)]
    items = [Lowered(cut, (0,), cut.mode)]
    one = engine.open(Prompt(list(prompt), "a", base, items, 50, version=2))
    two = engine.open(Prompt(tokens(180, 1), "b"))
    while len(one.pending) or len(two.pending):
        for run in (one, two):
            if len(run.pending):
                run.prefill()
    for token in (7, 8, 9):
        one.step(token)
        two.step(token)
    assert close(one.logits, plain([*prompt, 7, 8, 9]))
    assert close(two.logits, plain([*tokens(180, 1), 7, 8, 9]))


def test_score_tells_what_predicted_each_token(make, plain):
    run = make(chunk=16).start(Prompt(tokens(30)))
    more = tokens(40, 2)
    logits = run.score(more)
    assert logits.shape == (40, 400)
    for at in (0, 1, 17, 39):
        assert close(logits[at], plain([*tokens(30), *more[:at]]))
    assert close(run.logits, plain([*tokens(30), *more]))


def test_a_fault_in_a_step_leaves_the_run_as_it_was(make, plain, monkeypatch):
    engine = make(max_segments=0)
    run = engine.start(Prompt(tokens(60)))
    run.step(9)
    with monkeypatch.context() as patch:
        break_at(engine, patch, 1)  # the second layer
        with pytest.raises(Broken):
            run.extend([5, 6, 7])
    assert len(run.sequence) == 61
    run.extend([5, 6, 7])
    assert close(run.logits, plain([*tokens(60), 9, 5, 6, 7]))
    run.abandon()
    assert empty(engine)


@pytest.mark.parametrize("call", [0, 3, 5])
def test_a_fault_in_the_prompt_leaves_nothing(make, plain, monkeypatch, call):
    engine = make(chunk=40, max_segments=0)
    with monkeypatch.context() as patch:
        break_at(engine, patch, call)
        with pytest.raises(Broken):
            engine.start(Prompt(tokens(150)))
    assert engine.pool.num_used == 0
    assert close(engine.start(Prompt(tokens(150))).logits, plain(tokens(150)))


def test_a_fault_in_an_edited_prompt_leaves_the_base(make, monkeypatch):
    engine = make()
    base = engine.start(Prompt(tokens(100))).finish()
    used = engine.pool.num_used
    cut = Directive(20, 40, (5,), Mode.AMORTIZE)
    new = [*apply(base.tokens, [cut]), 7]
    prompt = Prompt(new, "", base, [Lowered(cut, (0,), cut.mode)], 1, version=2)
    with monkeypatch.context() as patch:
        break_at(engine, patch, 1)
        with pytest.raises(Broken):
            engine.start(prompt)
    assert engine.pool.num_used == used
    assert base.tokens == tokens(100)
    engine.start(prompt).abandon()
    base.release()
    assert empty(engine)


def test_ending_a_run(make):
    engine = make()
    run = engine.start(Prompt(tokens(50)))
    sequence = run.finish()
    with pytest.raises(EngineError, match="has ended"):
        run.finish()
    run.abandon()  # nothing to do any more
    assert sequence.tokens == tokens(50)
    sequence.release()
    assert engine.start(Prompt(tokens(50))).receipt.reused_exact == 49


def test_abandoning_half_a_prompt(make):
    engine = make(chunk=40)
    run = engine.open(Prompt(tokens(150)))
    run.prefill()
    run.abandon()
    run.abandon()
    assert engine.pool.num_used == 0
    with pytest.raises(EngineError, match="has ended"):
        run.finish()


def test_abandoning_while_the_engine_is_held(make):
    """As the garbage collector may, in the middle of another step."""
    engine = make()
    run = engine.start(Prompt(tokens(50)))
    with engine.exclusive():
        engine.abandon(run)
        assert engine.pool.references.any()
    with engine.exclusive():
        pass
    assert empty(engine)


def test_making_room_spares_what_runs(make, plain):
    """Prefixes are evicted around a live run, which goes on as if nothing had been."""
    engine = make(300, chunk=40)
    run = engine.open(Prompt(tokens(150)))
    run.prefill()
    engine.start(Prompt(tokens(100, 1))).abandon()
    while len(run.pending):
        run.prefill()
    engine.start(Prompt(tokens(120, 2))).abandon()
    run.step(9)
    assert close(run.logits, plain([*tokens(150), 9]))
    with pytest.raises(OutOfSlots):
        engine.start(Prompt(tokens(250, 3)))
    run.step(8)
    assert close(run.logits, plain([*tokens(150), 9, 8]))
    run.abandon()
    assert empty(engine)


def test_out_of_slots_leaves_the_run_as_it_was(make):
    engine = make(100)
    run = engine.start(Prompt(tokens(90)))
    with pytest.raises(OutOfSlots):
        run.extend(tokens(20))
    assert len(run.sequence) == 90
    run.extend(tokens(10))


def test_past_the_context(make):
    engine = make(5000)
    run = engine.start(Prompt(tokens(4096)))
    with pytest.raises(ContextOverflow, match="4097 tokens do not fit"):
        run.step(5)
    assert len(run.sequence) == 4096


def test_an_empty_prompt(make):
    with pytest.raises(InvalidRequest, match="at least one token"):
        make().start(Prompt([]))


def test_counting_needs_no_model():
    engine = Engine.counting(500)
    run = engine.start(Prompt(tokens(100)))
    assert run.logits is None
    assert run.score([5]) is None
    assert run.step(5) is None
    base = run.finish()
    cut = Directive(10, 30, (), Mode.AMORTIZE)
    items = [Lowered(cut, (0,), cut.mode)]
    run = engine.start(Prompt(apply(base.tokens, [cut]), "", base, items, version=2))
    assert (run.receipt.reused_exact, run.receipt.reused_spliced) == (10, 71)
    assert np.array_equal(run.pending, [])
