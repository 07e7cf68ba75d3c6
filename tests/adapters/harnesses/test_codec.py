"""Native messages go back where they came from, and edited ones as copies."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from notes import Note, NoteCodec

from leyline_adapters.harnesses.codec import missing, restored
from leyline_agent.message import Message


@given(st.lists(st.integers(0, 3), max_size=6), st.data())
def test_every_message_goes_back_where_it_came_from(ids: list[int], data: st.DataObject) -> None:
    """Call ids may repeat; what is dropped is gone, what is edited keeps its place."""
    natives = [
        Note(role, f"{role} {place}", f"c{id}", mark=f"{place}{role}")
        for place, id in enumerate(ids)
        for role in ("assistant", "tool")
    ]
    read = [NoteCodec().read(native) for native in natives]
    fates = data.draw(st.lists(st.sampled_from("keep edit drop".split()),
                               min_size=len(ids), max_size=len(ids)))  # fmt: skip
    sent: list[Message] = []
    expected: list[Note] = []
    for place, fate in enumerate(fates):
        call, result = natives[2 * place : 2 * place + 2]
        if fate != "drop":
            sent += [read[2 * place], read[2 * place + 1]]
            expected += [call, result]
        if fate == "edit":
            sent[-1] = {**sent[-1], "content": "cut"}
            expected[-1] = replace(result, text="cut")
    back = restored(NoteCodec(), natives, read, sent)
    assert [note.text for note in back] == [note.text for note in expected]
    assert [note.call for note in back] == [note.call for note in expected]
    for note, known, message in zip(back, expected, sent, strict=True):
        assert (note is known) == any(message is one for one in read)


def test_an_edited_result_is_a_copy_and_an_inserted_message_is_new() -> None:
    natives = [
        Note("user", "Run it.", mark="u"),
        Note("assistant", "", "c0"),
        Note("user", "Meanwhile."),
        Note("tool", "one line", "c0", mark="t"),
        Note("user", "Well?"),
    ]
    read = [NoteCodec().read(note) for note in natives]
    note = {"role": "user", "content": "STATE UPDATE"}
    sent = [*read[:3], {**read[3], "content": "cut"}, *read[4:], note]
    back = restored(NoteCodec(), natives, read, sent)
    assert back[3] == replace(natives[3], text="cut")
    assert back[-1] == Note("user", "STATE UPDATE", mark="made")
    assert all(one is natives[i] for i, one in enumerate(back[:-1]) if i != 3)


def test_a_text_in_the_place_of_one_of_the_same_role_is_that_one_edited() -> None:
    natives = [Note("user", "1", mark="a"), Note("assistant", "2", mark="b"), Note("user", "3")]
    read = [NoteCodec().read(note) for note in natives]
    sent = [read[0], {"role": "user", "content": "new"}, {**read[1], "content": "cut"}, read[2]]
    assert restored(NoteCodec(), natives, read, sent) == [
        natives[0], Note("user", "new", mark="made"), replace(natives[1], text="cut"), natives[2],
    ]  # fmt: skip


def test_a_missing_framework_is_told_with_what_installs_it() -> None:
    error = missing("langchain", "langchain>=1.4,<2", ImportError("No module named 'langchain'"))
    assert "No module named 'langchain'" in str(error)
    assert "pip install 'leyline-agent[langchain]'" in str(error)
