"""Namespaced hashes: a lineage finds its own blocks, and nobody else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from vllm_pool import hasher, request, sampled

from leyline_adapters.vllm.lineage import Mark, fork_name, inherited, namespaced

SIZE = 4


def hashes(tokens, *marks, later=()):
    """A request's block hashes, when it has marks, after sampling more tokens."""
    made = request(tokens, block_size=SIZE)
    if marks:
        del made.block_hashes[marks[0].start // SIZE :]
        made._block_hasher = namespaced(hasher(SIZE), marks, SIZE)
        made.update_block_hashes()
    sampled(made, *later)
    return made.block_hashes


def test_blocks_from_the_fork_on_have_other_hashes() -> None:
    plain, named = hashes(range(40)), hashes(range(40), Mark(10, b"a"))
    assert named[:2] == plain[:2]
    assert not set(named[2:]) & set(plain)
    assert named == hashes(range(40), Mark(10, b"a"))
    assert not set(named[2:]) & set(hashes(range(40), Mark(10, b"b")))


def test_a_fork_on_a_border_leaves_the_block_before_it_alone() -> None:
    plain, named = hashes(range(40)), hashes(range(40), Mark(8, b"a"))
    assert named[:2] == plain[:2]
    assert named[2] != plain[2]


marks = st.lists(
    st.builds(Mark, st.integers(0, 45), st.binary(min_size=1, max_size=2)), max_size=4
).map(lambda found: sorted(found, key=lambda mark: mark.start))
tokens = st.lists(st.integers(0, 3), min_size=1, max_size=30)


@given(prompt=tokens, more=st.lists(st.integers(0, 3), max_size=20), marks=marks)
def test_sampled_tokens_hash_as_prompt_tokens_do(prompt, more, marks) -> None:
    """The next turn's prompt, which has them, finds the blocks: also where a mark lies in them."""
    at_once = hashes([*prompt, *more], *marks)
    assert hashes(prompt, *marks, later=more) == at_once
    assert len(at_once) == len([*prompt, *more]) // SIZE


@given(prompt=tokens, marks=marks, other=marks)
def test_only_the_same_marks_share_what_is_behind_them(prompt, marks, other) -> None:
    left, right = hashes(prompt, *marks), hashes(prompt, *other)
    for block, (one, two) in enumerate(zip(left, right, strict=True)):
        here = [(mark.start // SIZE, mark.name) for mark in marks if mark.start // SIZE <= block]
        there = [(mark.start // SIZE, mark.name) for mark in other if mark.start // SIZE <= block]
        names = [
            b"".join(n for b, n in found if b == at)
            for at in range(block + 1)
            for found in (here, there)
        ]
        same = names[::2] == names[1::2]
        assert (one == two) == same


def test_names_depend_on_the_secret_and_all_parts() -> None:
    assert fork_name(b"k", "a", 1) == fork_name(b"k", "a", 1)
    others = {fork_name(b"k", "a", 1), fork_name(b"l", "a", 1), fork_name(b"k", "a1")}
    assert len(others | {fork_name(b"k", "a", "1")}) == 4


def test_marks_behind_what_is_shared_are_not_inherited() -> None:
    found = (Mark(3, b"a"), Mark(9, b"b"))
    assert inherited(found, 9) == found[:1]
    assert inherited(found, 10) == found
