from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.directive import Mode
from leyline_agent.errors import PolicyError
from leyline_agent.policy import Policy, parse
from leyline_agent.trajectory import Trajectory
from leyline_policies.keep_last import KeepLast
from leyline_policies.when import When

Run = Callable[..., Trajectory]


@pytest.fixture
def three(run: Run) -> Trajectory:
    """Seven messages, three turns, three results, about 300 tokens."""
    return run(*((f"step {n}", "x" * 348) for n in range(3)))


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("tokens>=300", True),
        ("tokens>=400", False),
        ("tokens<400", True),
        ("messages > 6", True),
        ("messages>7", False),
        ("turns<=3", True),
        ("turns<=2", False),
        ("results>=3", True),
        (lambda trajectory: len(trajectory.tool_calls) == 3, True),
        (lambda trajectory: bool(trajectory.pending), False),
    ],
)
def test_a_policy_edits_while_the_condition_holds(
    three: Trajectory, condition: str | Callable[[Trajectory], bool], holds: bool
) -> None:
    edits = When(condition=condition, policy="keep_last:n=1").propose(three)
    assert [edit.start for edit in edits] == ([2, 4] if holds else [])
    assert {edit.policy for edit in edits} == ({"keep_last"} if holds else set())


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("when:condition=turns>1,policy=(keep_last:n=1)", Mode.REPAIR),
        ("when:condition=turns>1,policy=(keep_last:n=1,mode=amortize)", Mode.AMORTIZE),
        ("when:condition=turns>1,mode=forget,policy=(keep_last:n=1)", Mode.FORGET),
        ("when:condition=turns>1,mode=repair,policy=(keep_last:n=1,mode=forget)", Mode.FORGET),
    ],
)
def test_an_edit_keeps_its_mode_unless_a_stronger_one_is_asked_for(
    three: Trajectory, text: str, mode: Mode
) -> None:
    assert {edit.mode for edit in parse(text).propose(three)} == {mode}


@pytest.mark.parametrize(
    "made",
    [
        When(condition="turns>3", policy=KeepLast(n=2)),
        When(condition="turns>3", policy="keep_last:n=2,exclude_tools=a|b+drop_failed_calls"),
        When(condition="turns>3", policy=When(condition="tokens>9", policy="dedupe+keep_all")),
    ],
)
def test_as_text_and_back(made: Policy) -> None:
    assert parse(str(made)) == made
    assert parse(f"{made}+keep_all").policies[0] == made  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("when", "option 'condition' is missing"),
        ("when:condition=tokens>9", "option 'policy' is missing"),
        ("when:condition=size>9,policy=keep_all", "'size>9' is no condition; write tokens>="),
        ("when:condition=tokens,policy=keep_all", "'tokens' is no condition"),
        ("when:condition=tokens>9,policy=(keep_lst:n=2)", "did you mean 'keep_last'"),
    ],
)
def test_bad_options_are_told(spec: str, problem: str) -> None:
    with pytest.raises(PolicyError) as error:
        parse(spec)
    assert problem in str(error.value)
