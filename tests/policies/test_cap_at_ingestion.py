from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent import Session
from leyline_agent.errors import PolicyError
from leyline_agent.policy import parse
from leyline_agent.signals import capped, is_capped
from leyline_agent.testing import MockAdapter
from leyline_agent.trajectory import Trajectory
from leyline_policies.cap_at_ingestion import CapAtIngestion
from leyline_policies.keep_last import KeepLast

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

HUGE = "".join(f"line {n}\n" for n in range(500))


def test_a_new_result_keeps_its_two_ends(run: Run) -> None:
    (edit,) = CapAtIngestion(max_chars=300).propose(run(("cat log", HUGE)))
    content = edit.replacement[0]["content"]
    assert (edit.start, edit.reason, len(content)) == (2, "capped", 300)
    assert content.startswith("<returncode>0</returncode>\n<output>\nline 0\n")
    assert content.endswith("line 499\n</output>")
    assert is_capped(content)


def test_only_what_was_not_yet_sent_is_cut(run: Run, places: Places) -> None:
    policy = CapAtIngestion(max_chars=300)
    assert places(policy, run(("cat log", HUGE), ("ls", "x"))) == []
    assert places(policy, run(("cat log", HUGE), ("cat log", HUGE))) == [4]


def test_no_cached_token_is_behind_the_cut(run: Run) -> None:
    session = Session(CapAtIngestion(max_chars=300), MockAdapter())
    messages = run(("cat a", "x"), ("cat log", HUGE), ("ls", "x")).messages
    for end in (1, 3, 5):
        turn = session.begin(messages[:end])
        turn.finish({"choices": [{"message": messages[end]}]})
    assert [edit.start for edit in session.edits] == [4]
    assert session.receipts[-1].reused_spliced == 0


def test_what_was_capped_may_be_masked_later(run: Run) -> None:
    capped = run(("cat log", HUGE))
    capped = capped.edited(CapAtIngestion(max_chars=300).propose(capped))
    later = capped.extended(run(("cat log", HUGE), ("ls", "x")).messages[3:])
    (edit,) = KeepLast(n=1).propose(later)
    assert edit.start == 2
    assert CapAtIngestion(max_chars=300).propose(later) == []


def test_a_result_is_capped_once(run: Run) -> None:
    policy = parse("cap_at_ingestion:max_chars=300+cap_at_ingestion:max_chars=200")
    trajectory = run(("cat log", HUGE))
    view = trajectory.edited(policy.propose(trajectory))
    assert len(view.tool_results[0].content) == 300
    assert policy.propose(view) == []


def test_an_output_that_quotes_the_line_of_a_cap_is_capped_too(run: Run, places: Places) -> None:
    assert places(CapAtIngestion(max_chars=300), run(("cat notes", f"{HUGE}{capped(7)}\n"))) == [2]


def test_pinned_results_stay(run: Run, places: Places) -> None:
    trajectory = run(("cat log", HUGE)).configured(pinned=frozenset({2}))
    assert places(CapAtIngestion(max_chars=300), trajectory) == []


def test_tools_can_be_left_out(run: Run, places: Places) -> None:
    trajectory = run(("cat log", HUGE))
    assert places(CapAtIngestion(max_chars=300, exclude_tools=("bash",)), trajectory) == []
    assert places(CapAtIngestion(max_chars=300, exclude_tools=("grep",)), trajectory) == [2]


def test_a_cap_has_room_for_both_ends() -> None:
    with pytest.raises(PolicyError, match="at least 100"):
        CapAtIngestion(max_chars=99)
