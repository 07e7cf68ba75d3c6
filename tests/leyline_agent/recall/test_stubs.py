"""Stubs with an id: which get the line, what policies see of it, how ids are told apart."""

import pytest

from leyline_agent.message import text
from leyline_agent.recall.stubs import Ids, line, marked, unmarked
from leyline_agent.signals import is_stub, stub
from leyline_agent.view import record, tombstone

LONG = {"role": "tool", "tool_call_id": "c1", "content": "output " * 50}
STUB = {**LONG, "content": stub("old")}


def test_a_stub_of_a_result_names_its_id():
    ids = Ids()
    made = marked(record(LONG), record(STUB), ids)
    assert made.message["content"] == f"{stub('old')}\n{line(made.recall)}"
    assert made.seen == STUB
    assert made.recall == ids.known(LONG["content"]) == Ids().of(LONG["content"])
    assert len(made.recall) == 7
    assert is_stub(made.message["content"])


def test_parts_get_a_part():
    parts = {**LONG, "content": [{"type": "text", "text": "short"}]}
    made = marked(record(LONG), record(parts), Ids())
    assert text(made.message) == f"short\n{line(made.recall)}"
    assert made.seen == parts


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (LONG, {**LONG, "content": "output " * 49}),  # the line would make it longer
        (LONG, {**LONG, "content": "x" * 400}),
        (LONG, {**STUB, "tool_call_id": "c2"}),
        ({**LONG, "role": "user"}, {**STUB, "role": "user"}),
        ({**LONG, "role": "assistant"}, STUB),
    ],
    ids=["no room", "longer", "another call", "a user's", "no result"],
)
def test_others_do_not(old, new):
    assert marked(record(old), record(new), Ids()) == record(new)


def test_what_is_redacted_has_no_id():
    assert marked(tombstone(record(LONG)), record(STUB), Ids()) == record(STUB)


def test_a_stub_of_a_stub_keeps_the_id():
    ids = Ids()
    first = marked(record(LONG), record({**LONG, "content": "output " * 20}), ids)
    second = marked(first, record(STUB), ids)
    assert second.recall == first.recall
    longer = marked(second, record({**STUB, "content": stub("old and long gone")}), ids)
    assert longer.recall == first.recall
    assert longer.message["content"].endswith(line(first.recall))


def test_ids_that_begin_alike_are_longer():
    ids = Ids()
    first = ids.of("one")
    ids._taken |= {first} | {f"r{ids_digest('two')[:n]}" for n in (6, 7)}
    assert len(ids.of("two")) == 9
    assert ids.of("two") == ids.of("two") != first


def ids_digest(content):
    found = Ids()
    found.of(content)
    return next(iter(found._ids))


def test_a_stub_is_known_again_from_a_journal():
    ids = Ids()
    for new in (STUB, {**LONG, "content": [{"type": "text", "text": "short"}]}):
        made = marked(record(LONG), record(new), ids)
        assert unmarked(record(made.message), made.recall) == made
    assert ids.claim(LONG["content"], {made.recall: "p"}) == made.recall
    assert Ids().claim("other", {made.recall: "p"}) is None
    shown = unmarked(record(LONG), made.recall)
    assert (shown.recall, shown.bare) == (made.recall, None)
