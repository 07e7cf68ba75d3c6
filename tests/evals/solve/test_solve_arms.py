"""Arms: policy by mechanism."""

from __future__ import annotations

import pytest

from leyline_agent.directive import Mode
from leyline_agent.errors import PolicyError
from leyline_agent.session import Session
from leyline_evals.solve.arms import (
    CONTROL,
    Mechanism,
    SolveArm,
    arms_of,
    find,
    parse_mechanisms,
)
from leyline_evals.solve.errors import EvalError

POLICY = "truncate_older_than:n=1,max_chars=20"


def test_the_control_comes_first_and_each_arm_once() -> None:
    made = arms_of([POLICY, POLICY], [Mechanism.PREFIX_CACHE, Mechanism.REPAIR])
    assert [arm.name for arm in made] == ["keep_all", f"{POLICY}@prefix_cache", f"{POLICY}@repair"]
    assert len({arm.slug for arm in made}) == len(made)


def test_what_edits_nothing_is_no_arm_of_its_own_but_without_a_cache() -> None:
    every = [arm.name for arm in arms_of(["keep_all"], list(Mechanism))]
    assert every == ["keep_all", "keep_all@plain"]


@pytest.mark.parametrize(
    ("mechanism", "mode"),
    [
        (Mechanism.PLAIN, Mode.FORGET),
        (Mechanism.PREFIX_CACHE, Mode.FORGET),
        (Mechanism.FORGET, Mode.FORGET),
        (Mechanism.AMORTIZE, Mode.AMORTIZE),
        (Mechanism.REPAIR, Mode.REPAIR),
    ],
)
def test_edits_go_out_in_the_mode_of_the_mechanism(mechanism: Mechanism, mode: Mode) -> None:
    session = Session(SolveArm(policy=POLICY, mechanism=mechanism).policies(), None)
    messages = [{"role": "user", "content": "go"}]
    for number in range(2):
        call = {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": ""}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": "x" * 100})
    (edit,) = session.begin(messages).edits
    assert edit.effective_mode() is mode


def test_the_control_edits_nothing() -> None:
    assert CONTROL.policies() is None


def test_slugs_of_long_names_differ() -> None:
    names = [f"keep_last:n={n}+{POLICY}+dedupe+superseded" for n in (1, 2)]
    slugs = [SolveArm(policy=name, mechanism=Mechanism.REPAIR).slug for name in names]
    assert len(set(slugs)) == 2
    assert all("/" not in slug and len(slug) < 60 for slug in slugs)


def test_an_arm_is_found_by_name_or_mechanism() -> None:
    arms = arms_of([POLICY], [Mechanism.PLAIN, Mechanism.REPAIR])
    assert find("keep_all", arms) == arms[0]
    assert find("repair", arms) == arms[2]
    assert find(f"{POLICY}@plain", arms) == arms[1]
    with pytest.raises(EvalError, match=r"no arm 'amortize'; the arms of this run are keep_all"):
        find("amortize", arms)
    two = arms_of([POLICY, "dedupe"], [Mechanism.PLAIN])
    with pytest.raises(EvalError, match="several arms 'plain'"):
        find("plain", two)


def test_bad_names_are_told() -> None:
    with pytest.raises(EvalError, match=r"no mechanism 'fast'; they are plain, prefix_cache"):
        parse_mechanisms("plain,fast")
    with pytest.raises(EvalError, match="no mechanisms given"):
        parse_mechanisms(" , ")
    with pytest.raises(PolicyError, match="no policy"):
        arms_of(["nonsense"], [Mechanism.PLAIN])
