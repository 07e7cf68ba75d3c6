import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.edit import Edit, apply
from leyline_agent.message import digest
from leyline_agent.view import Piece, View, common, record, restored, tombstone


def user(text):
    return {"role": "user", "content": text}


def view_of(n):
    return View().extended(record(user(f"m{i}")) for i in range(n))


def fold(view, *edits):
    return view.fold([(e, tuple(map(record, e.replacement))) for e in edits])


def texts(view):
    return [r.message["content"] for r in view.records]


def ranges(view):
    return [(p.start, p.end, len(p.records)) for p in view.pieces]


def test_extended_gives_every_message_its_own_piece():
    assert ranges(view_of(3)) == [(0, 1, 1), (1, 2, 1), (2, 3, 1)]


def test_fold_replaces_a_range_by_one_piece():
    view = fold(view_of(6), Edit(2, 5, (user("stub"),), policy="p"))
    assert texts(view) == ["m0", "m1", "stub", "m5"]
    assert view.pieces[2] == Piece(2, 5, (record(user("stub")),), "p")


def test_fold_keeps_a_dropped_range_as_an_empty_piece():
    view = fold(view_of(4), Edit(1, 3))
    assert texts(view) == ["m0", "m3"]
    assert ranges(view) == [(0, 1, 1), (1, 3, 0), (3, 4, 1)]


def test_an_edit_of_an_earlier_stub_merges_with_it():
    view = fold(view_of(6), Edit(1, 3, (user("a"), user("b")), policy="p"))
    view = fold(view, Edit(2, 4, (user("c"),), policy="q"))
    assert texts(view) == ["m0", "a", "c", "m4", "m5"]
    assert ranges(view) == [(0, 1, 1), (1, 4, 2), (4, 5, 1), (5, 6, 1)]


def test_two_edits_inside_one_stub():
    view = fold(view_of(4), Edit(1, 3, tuple(map(user, "abcd"))))
    view = fold(view, Edit(1, 2), Edit(3, 5, (user("z"),)))
    assert texts(view) == ["m0", "b", "z", "m3"]
    assert ranges(view) == [(0, 1, 1), (1, 3, 2), (3, 4, 1)]


def test_an_inserted_message_stands_for_nothing():
    view = fold(view_of(2), Edit(1, 1, (user("note"),)), Edit(2, 2, (user("end"),)))
    assert texts(view) == ["m0", "note", "m1", "end"]
    assert ranges(view) == [(0, 1, 1), (1, 1, 1), (1, 2, 1), (2, 2, 1)]


def test_a_dropped_insertion_leaves_no_trace():
    view = fold(view_of(2), Edit(1, 1, (user("note"),)))
    assert fold(view, Edit(1, 2)) == view_of(2)


def test_cut_history_drops_pieces_that_reach_behind_the_place():
    view = fold(view_of(8), Edit(2, 3, (user("a"),)), Edit(4, 7, (user("b"),)))
    cut = view.cut_history(6)
    assert (texts(cut.view), cut.kept) == (["m0", "m1", "a", "m3"], 4)
    assert view.cut_history(7).kept == 7
    assert view.cut_history(8).view is view


def test_cut_view_keeps_whole_pieces():
    view = fold(view_of(6), Edit(1, 4, (user("a"), user("b"))))
    assert [view.cut_view(n).kept for n in range(6)] == [0, 1, 1, 4, 5, 6]


def test_rounds_count_edits_of_edits_with_nothing_new_in_them():
    view = view_of(5)
    for expected in range(4):
        edit = Edit(1, 2, (user(f"again {expected}"),), policy="p")
        assert view.rounds(edit) == expected
        view = fold(view, edit)
    assert view.rounds(Edit(1, 3, (user("with m2"),), policy="p")) == 0


def test_rounds_count_insertions_beside_insertions():
    view = fold(view_of(3), Edit(2, 2, (user("note"),), policy="p"))
    assert view.rounds(Edit(2, 2, (user("note"),), policy="p")) == 1
    assert view.rounds(Edit(3, 3, (user("note"),), policy="p")) == 1
    assert view.rounds(Edit(2, 2, (user("note"),), policy="other")) == 0
    assert view.rounds(Edit(1, 1, (user("note"),), policy="p")) == 0


def test_common_tells_what_only_looks_different():
    view = view_of(3)
    hinted = [user("m0"), {**user("m1"), "cache_control": {}}, user("other")]
    assert common(view.records, hinted) == (2, [1])


def test_tombstone_keeps_the_call_and_the_digest_only():
    message = {
        "role": "assistant",
        "content": "secret",
        "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"key": "secret"}'}}],
    }
    grave = tombstone(record(message))
    assert "secret" not in str(grave.message)
    assert grave.message["tool_calls"][0]["id"] == "a"
    assert grave.digest == digest(message)
    assert grave.matches(message)
    assert restored(grave.message) == grave


@st.composite
def batches(draw, length):
    """A legal batch of edits of a view of `length` messages."""
    places = sorted(draw(st.sets(st.integers(0, length), max_size=6)))
    edits = []
    for start, end in zip(places[::2], places[1::2], strict=False):
        count = draw(st.integers(0, 3))
        edits.append(Edit(start, end, tuple(user(f"e{start}-{i}") for i in range(count))))
    if len(places) % 2:
        edits.append(Edit(places[-1], places[-1], (user(f"i{places[-1]}"),)))
    return edits


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_folding_equals_applying_and_the_pieces_tile_the_history(data):
    view = view_of(data.draw(st.integers(1, 8)))
    for _ in range(3):
        edits = data.draw(batches(len(view)))
        messages = [r.message for r in view.records]
        view = fold(view, *edits)
        assert [r.message for r in view.records] == apply(edits, messages)
        assert len(view) == len(view.records)
        bounds = [0, *(p.end for p in view.pieces)]
        assert [p.start for p in view.pieces] == bounds[:-1]
        view = view.extended([record(user(f"n{view.history_len}"))])
        cut = view.cut_history(data.draw(st.integers(0, view.history_len)))
        assert view.pieces[: len(cut.view.pieces)] == cut.view.pieces
        assert cut.kept == cut.view.history_len


@pytest.mark.parametrize("index", [0, 3])
def test_replaced_touches_unedited_pieces_only(index):
    view = fold(view_of(4), Edit(1, 3, (user("stub"),)))
    other = record({**user(f"m{index}"), "extra": 1})
    changed = view.replaced({index: other, 1: record(user("never"))})
    assert other in changed.records
    assert texts(changed) == texts(view)
