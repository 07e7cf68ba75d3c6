from __future__ import annotations

from collections.abc import Callable

from leyline_agent.edit import Edit
from leyline_agent.recall.stubs import line
from leyline_agent.signals.history import originals, unsent, untouched
from leyline_agent.signals.stub import capped, cut, is_capped, is_cut, is_stub, stub
from leyline_agent.trajectory import Trajectory

Run = Callable[..., Trajectory]


def three(run: Run) -> Trajectory:
    return run(*(("f", {"n": n}, f"output {n}") for n in range(3)))


def test_an_unedited_view_is_its_own_history(run: Run) -> None:
    trajectory = three(run)
    assert originals(trajectory) == trajectory.tool_results
    assert untouched(trajectory) == trajectory.tool_results


def test_results_edited_in_place_are_matched_by_place(run: Run) -> None:
    trajectory = three(run)
    view = trajectory.edited([trajectory.tool_results[1].replace("x")])
    assert [r.content for r in originals(view)] == ["output 0", "output 1", "output 2"]
    assert [r.index for r in untouched(view)] == [2, 6]


def test_results_that_moved_are_matched_by_call_id(run: Run) -> None:
    trajectory = three(run)
    last = trajectory.tool_results[2]
    view = trajectory.edited([Edit(1, 3), last.replace("x")])
    assert [r.content for r in originals(view)] == ["output 1", "output 2"]
    assert [r.index for r in untouched(view)] == [2]


def test_results_of_a_view_that_lost_as_many_messages_as_it_gained(run: Run) -> None:
    """A dropped call and a recall: the same length, other places."""
    trajectory = three(run)
    call, shown = run(("leyline_recall", {"id": "r1"}, "output 0")).messages[1:]
    call["tool_calls"][0]["id"] = shown["tool_call_id"] = "recall"
    view = trajectory.edited([Edit(1, 3), Edit(7, 7, (call, shown))])
    assert [r.content for r in originals(view)] == ["output 1", "output 2", "output 0"]
    assert untouched(view) == view.tool_results


def test_results_that_cannot_be_told_apart_stand_for_themselves(run: Run) -> None:
    messages = list(three(run).messages)
    for message in messages[1:]:
        if "tool_calls" in message:
            message["tool_calls"][0]["id"] = "same"
        else:
            message["tool_call_id"] = "same"
    trajectory = Trajectory(messages=messages)
    view = trajectory.edited([Edit(1, 3)])
    assert [r.content for r in originals(view)] == ["output 1", "output 2"]


def test_stubs_and_cuts_are_told_without_a_history(run: Run) -> None:
    trajectory = run(
        ("f", {}, stub("stale")),
        ("f", {}, f"a\n{cut(99)}\nb"),
        ("f", {}, f"any stub\n{line('r3f9a2c')}"),
        ("f", {}, "as it was"),
    )
    assert [r.content for r in untouched(trajectory)] == ["as it was"]


def test_a_result_capped_before_it_was_sent_counts_as_untouched(run: Run) -> None:
    trajectory = three(run)
    short = f"out\n{capped(5)}\n0"
    view = trajectory.edited([trajectory.tool_results[0].replace(short)])
    assert untouched(view)[0].content == short
    cut_later = view.edited([view.tool_results[0].replace(f"o\n{cut(9)}\n{capped(5)}\n0")])
    assert [r.index for r in untouched(cut_later)] == [4, 6]


def test_pinned_results_are_none_to_edit(run: Run) -> None:
    trajectory = three(run).configured(pinned=frozenset({4}))
    assert [r.index for r in untouched(trajectory)] == [2, 6]


def test_unsent_are_the_results_behind_the_last_reply(run: Run) -> None:
    trajectory = three(run)
    assert [r.index for r in unsent(trajectory)] == [6]
    said = trajectory.extended([{"role": "assistant", "content": "done"}])
    assert unsent(said) == ()
    results = [trajectory.messages[2], {**trajectory.messages[2], "tool_call_id": "b"}]
    assert len(unsent(Trajectory(messages=results))) == 2


def test_what_counts_as_a_stub_or_a_cut() -> None:
    assert stub("why") == "[Earlier output removed: why]"
    assert is_stub(stub("why"))
    assert not is_stub("[Earlier today")
    assert is_cut(f"head\n{cut(5)}\ntail")
    assert not is_cut("[... five characters removed ...]")
    assert is_capped(f"head\n{capped(5)}\ntail")
    assert not is_cut(capped(5))
    assert not is_capped(cut(5))
