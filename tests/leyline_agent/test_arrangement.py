from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.arrangement import arranged
from leyline_agent.edit import Edit
from leyline_agent.question import Ask

NOTE = ({"role": "user", "content": "x"},)

edits = st.builds(
    lambda start, length, redact: Edit(start, start + length, NOTE, redact=redact),
    st.integers(0, 8),
    st.integers(0, 4),
    st.sampled_from([False, False, False, True]),
)
parts = st.lists(st.lists(edits, max_size=4), max_size=4)


def one_by_one(parts, first):
    """The same, by asking each edit of each other."""
    every = [first, *parts]
    taken = [edit for part in every for edit in part if edit.redact]
    taken += [edit for edit in first if not edit.redact]
    for part in parts:
        free = [e for e in part if not e.redact and not any(map(e.overlaps, taken))]
        taken += free
    return taken


@given(parts, st.lists(edits, max_size=2))
def test_it_is_what_asking_each_edit_of_each_other_gives(parts, first):
    assert arranged(parts, first) == one_by_one(parts, first)


def test_questions_come_last_and_all_of_them():
    ask = Ask("k", NOTE)
    assert arranged([[ask, Edit(1, 2)], [Edit(1, 2), ask]]) == [Edit(1, 2), ask, ask]
