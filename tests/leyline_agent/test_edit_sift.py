from leyline_agent.edit import Edit, check, sift
from leyline_agent.errors import BrokenToolPair, InvalidSpan, OverlappingSpans, PinnedMessage


def call(call_id):
    return {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "function": {"name": "f", "arguments": "{}"}}],
    }


def result(call_id):
    return {"role": "tool", "tool_call_id": call_id, "content": "out"}


RUN = [
    {"role": "system", "content": "s"}, {"role": "user", "content": "task"},
    call("a"), result("a"), call("b"), result("b"), call("c"), result("c"),
]  # fmt: skip
NOTE = ({"role": "user", "content": "note"},)


def kinds(refused):
    return [(edit.start, edit.end, type(error)) for edit, error in refused]


def test_a_legal_batch_stays_whole_and_is_sorted():
    edits = [Edit(4, 6), Edit(2, 4)]
    assert sift(edits, RUN) == (check(edits, RUN), ())


def test_what_is_illegal_by_itself_goes_and_the_rest_stays():
    edits = [Edit(0, 1), Edit(2, 4), Edit(7, 99), Edit(4, 6)]
    legal, refused = sift(edits, RUN, pinned={5})
    assert legal == (Edit(2, 4),)
    assert kinds(refused) == [(0, 1, PinnedMessage), (7, 99, InvalidSpan), (4, 6, PinnedMessage)]


def test_of_two_that_overlap_the_earlier_in_the_batch_stays():
    legal, refused = sift([Edit(4, 6), Edit(2, 6)], RUN)
    assert legal == (Edit(4, 6),)
    assert kinds(refused) == [(2, 6, OverlappingSpans)]


def test_edits_that_keep_pairs_only_together_survive_one_that_breaks_a_pair():
    edits = [Edit(2, 3), Edit(3, 4), Edit(6, 7)]
    legal, refused = sift(edits, RUN)
    assert legal == (Edit(2, 3), Edit(3, 4))
    assert kinds(refused) == [(6, 7, BrokenToolPair)]


def test_an_insertion_between_a_call_and_its_result_is_to_blame_itself():
    legal, refused = sift([Edit(4, 6), Edit(3, 3, NOTE)], RUN)
    assert legal == (Edit(4, 6),)
    assert kinds(refused) == [(3, 3, BrokenToolPair)]
