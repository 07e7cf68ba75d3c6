"""Arms: their names, and a policy in each of them."""

from __future__ import annotations

import pytest

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.policy import Pipeline, parse, policy
from leyline_agent.trajectory import Trajectory
from leyline_evals.replay.arms import ALL_ARMS, Arm, InMode, parse_arms, policy_of
from leyline_evals.replay.errors import ReplayError


def trajectory() -> Trajectory:
    return Trajectory(
        [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "tool_calls": [{"id": "1", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "content": "text " * 50},
        ]
    )


@policy(mode=Mode.REPAIR)
def stub(seen: Trajectory) -> list[Edit]:
    return [seen.tool_results[0].replace("stub", mode=Mode.AMORTIZE, reason="old")]


@policy
def redact(seen: Trajectory) -> list[Edit]:
    return [seen.tool_results[0].replace("gone", redact=True)]


def test_arms_are_parsed_in_order_and_once() -> None:
    assert parse_arms("repair, append_only,repair") == (Arm.REPAIR, Arm.APPEND_ONLY)
    assert parse_arms("append_only,prefix_cache,forget,amortize,repair") == ALL_ARMS


@pytest.mark.parametrize(
    ("text", "said"), [("", "no arms given"), (",", "no arms given"), ("forge", "no arm 'forge'")]
)
def test_bad_arms(text: str, said: str) -> None:
    with pytest.raises(ReplayError, match=said):
        parse_arms(text)


@pytest.mark.parametrize("mode", Mode)
def test_every_edit_gets_the_arm_s_mode(mode: Mode) -> None:
    ran = policy_of(Arm(mode.value), stub)
    assert ran is not None
    [edit] = ran.propose(trajectory())
    assert edit.mode is mode
    assert (edit.reason, edit.policy) == ("old", "stub")


def test_append_only_edits_nothing() -> None:
    assert policy_of(Arm.APPEND_ONLY, stub) is None
    assert not Arm.APPEND_ONLY.edits


def test_what_asks_to_be_forgotten_is_forgotten_in_every_arm() -> None:
    @policy(mode=Mode.FORGET)
    def correct(seen: Trajectory) -> list[Edit]:
        return [seen.tool_results[0].replace("right")]

    for mode in Mode:
        [edit] = InMode(inner=correct, mode=mode).propose(trajectory())
        assert edit.mode is Mode.FORGET


def test_a_redaction_stays_forget() -> None:
    [edit] = InMode(inner=redact, mode=Mode.AMORTIZE).propose(trajectory())
    assert edit.effective_mode() is Mode.FORGET


def test_a_pipeline_keeps_its_parts() -> None:
    parts = parse("keep_last:n=1+stale_reads+keep_all")
    ran = policy_of(Arm.AMORTIZE, Pipeline(policies=(parts, stub)))
    assert isinstance(ran, Pipeline)
    assert ran.name == "keep_last+stale_reads+keep_all+stub"
    assert all(edit.mode is Mode.AMORTIZE for edit in ran.propose(trajectory())), (
        "every part runs in the arm's mode"
    )
    assert ran.propose(trajectory())
