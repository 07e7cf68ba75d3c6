"""Working copies under a budget: whose is whose, who gives way, and who gets none."""

from __future__ import annotations

import pytest
import torch

from leyline_agent.serving.kv.copies import WorkingCopies
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.models.probe import KVShape
from leyline_agent.serving.models.rope import RopeSpec

LENGTH = 400
ROOM = LENGTH + 512  # tokens a copy of that length takes, with what it keeps to grow


@pytest.fixture
def store() -> KVStore:
    store = KVStore((KVShape(1, 4, 4, None),), 4000, torch.float32)
    store.keys[0].normal_()
    store.values[0].normal_()
    return store


@pytest.fixture
def copies(store: KVStore) -> WorkingCopies:
    """Room for two."""
    pool = SlotPool(store.num_slots)
    pool.allocate(store.num_slots)
    rope = RopeSpec(torch.tensor([1.0, 0.1], dtype=torch.float64), "half")
    return WorkingCopies(store, pool, rope, 2 * ROOM * store.bytes_per_token)


def sequence(first: int, length: int = LENGTH) -> list[Segment]:
    """Segments of ten tokens, every second one moved."""
    return [
        Segment(first + at, min(10, length - at), (at // 10) % 2) for at in range(0, length, 10)
    ]


def test_a_sequence_finds_its_own_again(copies: WorkingCopies, store: KVStore) -> None:
    one = copies.take(sequence(0), [])
    two = copies.take(sequence(1000), [])
    assert one is not None
    assert two is not None
    assert one is not two
    longer = [*sequence(0), Segment(3000, 1)]
    assert copies.take(longer, []) is one
    torch.testing.assert_close(one.values[0][LENGTH], store.values[0][3000])
    assert copies.take(sequence(1000)[:30], []) is two
    assert len(copies) == 2


def test_a_shared_beginning_makes_no_owner(copies: WorkingCopies) -> None:
    one = copies.take(sequence(0), [])
    other = [*sequence(0, 50), *sequence(1000, LENGTH - 50)]
    assert copies.take(other, []) is not one


def test_the_least_recently_used_gives_way(copies: WorkingCopies) -> None:
    one, two = copies.take(sequence(0), []), copies.take(sequence(1000), [])
    assert copies.take(sequence(0), []) is one
    three = copies.take(sequence(2000), [])
    assert three is not None
    assert copies.take(sequence(0), []) is one
    assert copies.take(sequence(1000), []) is not two
    assert copies.num_bytes <= copies.max_bytes


def test_those_of_the_same_pass_do_not(copies: WorkingCopies) -> None:
    taken = []
    for first in (0, 1000):
        copy = copies.take(sequence(first), taken)
        assert copy is not None
        taken.append(copy)
    assert copies.take(sequence(2000), taken) is None
    assert copies.take(sequence(0), []) is taken[0]


def test_what_never_fits_gets_none(copies: WorkingCopies) -> None:
    assert copies.take(sequence(0, 3 * ROOM), []) is None


def test_dropping_frees_the_bytes(copies: WorkingCopies, store: KVStore) -> None:
    copies.take(sequence(0), [])
    assert copies.drop() == ROOM * store.bytes_per_token
    assert (len(copies), copies.num_bytes) == (0, 0)
