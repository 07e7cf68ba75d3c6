from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from leyline_agent import Session
from leyline_agent.edit import Edit
from leyline_agent.policy import policy
from leyline_agent.trajectory import Trajectory
from leyline_policies.keep_last import KeepLast
from leyline_policies.pinned import Pinned

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

LONG = "x" * 400


@pytest.fixture
def mixed(run: Run) -> Trajectory:
    """A result, a tagged one, a failure and a result, at 2, 4, 6 and 8."""
    boom = "Traceback (most recent call last):\n" + "  x\n" * 90 + "ValueError: no"
    calls = ("a", LONG), ("b", LONG + "<pin>"), ("python c.py", boom, 1), ("d", LONG)
    return run(*calls)


@pytest.mark.parametrize(
    ("options", "edited"),
    [
        ({}, [2, 6, 8]),
        ({"tags": ()}, [2, 4, 6, 8]),
        ({"tags": ("ValueError", "<pin>")}, [2, 8]),
        ({"errors": True}, [2, 8]),
        ({"tools": ("bash",)}, []),
    ],
)
def test_what_is_pinned_stays(
    mixed: Trajectory, places: Places, options: dict[str, object], edited: list[int]
) -> None:
    assert places(Pinned(policy="keep_last:n=0", **options), mixed) == edited


def test_what_the_user_says_stays(mixed: Trajectory) -> None:
    said = {"role": "user", "content": "Never touch the database."}
    trajectory = mixed.extended([said])

    @policy
    def drop_last(trajectory: Trajectory) -> Iterator[Edit]:
        yield Edit(9, 10)

    assert Pinned(policy=drop_last).propose(trajectory) == []
    assert len(Pinned(policy=drop_last, users=False).propose(trajectory)) == 1


def test_results_in_user_messages_are_not_what_the_user_says() -> None:
    messages = [{"role": "user", "content": "task"}]
    for _ in range(3):
        messages += [
            {"role": "assistant", "content": "```\nls\n```"},
            {"role": "user", "content": LONG},
        ]
    trajectory = Trajectory(messages=messages, observations="user")
    edits = Pinned(policy="keep_last:n=1").propose(trajectory)
    assert [edit.start for edit in edits] == [2, 4]


def test_a_pinned_result_does_not_count_towards_a_batch(mixed: Trajectory, places: Places) -> None:
    inner = KeepLast(n=0, polling=4)
    assert places(inner, mixed) == [2, 4, 6, 8]
    assert places(Pinned(policy=inner), mixed) == []


def test_a_redaction_goes_through(mixed: Trajectory) -> None:
    @policy
    def redact(trajectory: Trajectory) -> Iterator[Edit]:
        yield trajectory.tool_results[1].replace("[redacted]", redact=True)

    (edit,) = Pinned(policy=redact).propose(mixed)
    assert (edit.start, edit.redact) == (4, True)


def test_the_session_s_own_pins_stay_pinned(mixed: Trajectory, places: Places) -> None:
    trajectory = mixed.configured(pinned=frozenset({2}))
    assert places(Pinned(policy="keep_last:n=0"), trajectory) == [6, 8]


def test_what_policies_add_is_not_what_the_user_says(run: Run) -> None:
    """An update that could not be dropped would stand beside the next one."""
    session = Session("pinned:policy=(erratum:fields=Port)")
    messages = list(run(*(("status", f"Port: {n}") for n in range(4))).messages)
    for place in (3, 5, 7):
        session.begin(messages[:place]).finish({"choices": [{"message": messages[place]}]})
    turn = session.begin(messages)
    sent = [str(message["content"]) for message in turn.request["messages"]]
    assert [text for text in sent if "STATE UPDATE" in text] == [
        "STATE UPDATE, which overrides any earlier value:\nPort: 3"
    ]
    assert session.skipped == ()
