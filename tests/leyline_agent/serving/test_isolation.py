"""Many sessions at once: each gets what it would get alone, and what is canonical is exact."""

import random
import string

import pytest
import torch
from chat_texts import user

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.modes import ModeRules
from leyline_agent.serving.repair import RepairConfig

BYTES_A_TOKEN = 2 * 2 * 2 * 16 * 4  # layers, heads, keys and values, head size, float32
SESSIONS = (("one", "acme"), ("two", "acme"), ("three", "acme"), ("four", "other"))


def text_of(rng):
    """One of a few texts, so that sessions often say the same."""
    own = random.Random(rng.randrange(6))
    size = own.randrange(2, 9)
    return "\n".join("".join(own.choices(string.ascii_letters, k=20)) for _ in range(size))


def edits_of(rng, view):
    """Up to three edits behind the task, apart from one another."""
    places = sorted(rng.sample(range(2, len(view)), min(len(view) - 2, rng.randrange(4))))
    edits = []
    for place in places:
        if not edits or place >= edits[-1].end + rng.randrange(2):
            new = tuple(user(text) for text in rng.choice(([], ["gone"], ["a stub", "and more"])))
            edits.append(Edit(place, place + 1, new, rng.choice(list(Mode))))
    return edits


@pytest.fixture
def make_service(tiny_model):
    def make(num_slots=8000, max_segments=8):
        config = EngineConfig(
            kv_bytes=2 * num_slots * BYTES_A_TOKEN,
            max_segments=max_segments,
            chunk=150,
            rules=ModeRules(gate_tokens=4),
            repair=RepairConfig(window=8, max_echo=32, tail=16),
        )
        return ChatService(Engine.of(tiny_model, config), "tiny", tiny_model.tokenizer)

    return make


@pytest.fixture
def plain(tiny_model):
    """Logits behind tokens, prefilled from nothing."""

    def logits(tokens):
        return Engine.of(tiny_model).start(Prompt(list(tokens))).logits

    return logits


def close(found, expected):
    return (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def prompt_of(one):
    return one.sequence.tokens[: one.held.newest.prompt_len]


@pytest.mark.parametrize("seed", range(4))
def test_no_session_reads_what_another_has_spliced(make_service, talk, plain, check_pool, seed):
    """Each turn's logits are those of the session alone, or of an honest prefill.

    Alone means a service of its own that serves no other session. Where a sibling has computed an
    edited prompt honestly, that is taken instead of the splice; from then on they may differ.
    """
    rng = random.Random(seed)
    shared = make_service(max_segments=rng.choice((0, 8)))
    talks = {name: talk(shared, name, tenant) for name, tenant in SESSIONS}
    alone = {name: talk(make_service(), name, tenant) for name, tenant in SESSIONS}
    same = dict.fromkeys(talks, True)
    compared = spliced = 0
    for _ in range(40):
        name = rng.choice(list(talks))
        one, copy = talks[name], alone[name]
        if len(one.view) > 12:
            continue
        new, edits = user(text_of(rng)), edits_of(rng, one.view) if one.version else []
        receipt, logits = one.turn(new, edits=edits, reply="ok")
        expected, wanted = copy.turn(new, edits=edits, reply="ok")
        same[name] = same[name] and receipt.reused_spliced == expected.reused_spliced
        if same[name]:
            assert close(logits, wanted)
            compared += 1
            spliced += bool(receipt.reused_spliced)
        if one.sequence.canonical_len == len(one.sequence):
            assert receipt.reused_spliced == 0
            assert close(logits, plain(prompt_of(one)))
        check_pool(shared)
    assert compared > 10
    assert spliced > 0


@pytest.mark.parametrize("max_segments", [8, 0])
@pytest.mark.parametrize("seed", range(3))
def test_a_pool_far_too_small_keeps_answers_right(
    make_service, talk, plain, check_pool, seed, max_segments
):
    """Versions, prefixes and whole sessions are given up all the time; what is left is exact."""
    rng = random.Random(100 + seed)
    service = make_service(900, max_segments)
    talks = [talk(service, name, tenant) for name, tenant in SESSIONS]
    canonical = 0
    reasons = set()
    for _ in range(60):
        one = rng.choice(talks)
        if len(one.view) > 8:
            one.service.sessions.drop(one.tenant, one.id)
            one.took(one.view[:2], 0)
            one.base_len = 0
        edits = edits_of(rng, one.view) if one.version else []
        receipt, logits = one.turn(user(text_of(rng)), edits=edits, reply="ok")
        reasons.add(receipt.reason.value)
        if one.sequence.canonical_len == len(one.sequence):
            assert close(logits, plain(prompt_of(one)))
            canonical += 1
        check_pool(service)
    assert "evicted" in reasons
    assert canonical > 15
    for one in talks:
        service.sessions.drop(one.tenant, one.id)
    service.engine.forest.evict(900)
    assert service.engine.pool.num_used == 0


def test_spliced_kv_depends_on_the_lineage_and_stays_in_it(make_service, talk, plain):
    """Two sessions of one tenant reach the same prompt, one by a splice, one honestly."""
    service = make_service()
    long, next_text = user("\n".join(string.ascii_letters for _ in range(6))), user("next")
    one, two = talk(service, "one"), talk(service, "two")
    one.turn(user(text_of(random.Random(1))), reply="a")
    one.turn(long, reply="b")
    cut = Edit(2, 3, (user("gone"),), Mode.AMORTIZE)
    receipt, dishonest = one.turn(next_text, edits=[cut])
    assert receipt.reused_spliced > 0
    two.view = list(one.view[:-2])
    receipt, honest = two.turn(next_text)
    assert prompt_of(one) == prompt_of(two)
    assert receipt.reused_spliced == 0
    assert close(honest, plain(prompt_of(two)))
    assert not close(dishonest, honest)


def test_tenants_share_nothing(make_service, talk):
    service = make_service()
    one, two = talk(service, "s", "acme"), talk(service, "s", "other")
    for each in (one, two):
        receipt, _ = each.turn(user("hello"))
        assert receipt.reused == 0
    assert one.turn(user("more"))[0].reused_exact > 0


def test_nothing_is_read_before_it_is_written(make_service, talk):
    service = make_service(max_segments=0)
    store = service.engine.executor.store
    for tensor in (*store.keys, *store.values):
        tensor.fill_(float("nan"))
    rng = random.Random(5)
    one = talk(service)
    for _ in range(8):
        edits = edits_of(rng, one.view) if one.version else []
        _, logits = one.turn(user(text_of(rng)), edits=edits, reply="ok")
        assert torch.isfinite(logits).all()
