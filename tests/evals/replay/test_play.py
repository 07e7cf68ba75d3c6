"""Playing runs: the figures of every arm, its isolation, and where it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.policy import Policy, parse, policy
from leyline_agent.readers import Recording
from leyline_agent.receipt import Reason
from leyline_agent.trajectory import Trajectory
from leyline_evals.replay.arms import ALL_ARMS, Arm
from leyline_evals.replay.engines import Engines
from leyline_evals.replay.play import play
from leyline_evals.replay.records import ArmRun
from leyline_evals.replay.workload import Run, Workload

POLICY = parse("truncate_older_than:n=2,max_chars=20")
CUT = parse("keep_last:n=1")


def by_arm(results: Sequence[ArmRun]) -> dict[Arm, ArmRun]:
    return {played.arm: played for played in results}


def compute(played: ArmRun) -> list[int]:
    return [row.compute for row in played.rows]


@pytest.fixture
def run(runs_file: Callable[..., Path]) -> Run:
    [made] = Workload([runs_file(9, chars=400)])
    return made


@pytest.fixture
def played(run: Run, counting: Engines) -> dict[Arm, ArmRun]:
    return by_arm(play(run, ALL_ARMS, POLICY, counting))


def test_every_turn_is_played_in_every_arm(played: dict[Arm, ArmRun]) -> None:
    for arm, one in played.items():
        assert one.arm is arm
        assert [row.turn for row in one.rows] == list(range(1, 10))
        assert one.ended is None
        assert all(row.ttft_ms is None for row in one.rows)


def test_the_figures_of_a_turn_add_up(played: dict[Arm, ArmRun]) -> None:
    for one in played.values():
        for row in one.rows:
            assert row.prompt == row.exact + row.spliced + row.recomputed + row.prefilled
            assert row.prompt > 0
            assert row.prefilled > 0  # the last token is computed, for its logits


def test_append_only_prefills_each_token_once(played: dict[Arm, ArmRun]) -> None:
    rows = played[Arm.APPEND_ONLY].rows
    assert all(row.edits == row.spliced == row.recomputed == 0 for row in rows)
    assert [row.prompt for row in rows] == sorted(row.prompt for row in rows)
    # A reply counts as generated: what is prefilled stays below the last prompt.
    assert sum(row.prefilled for row in rows) < rows[-1].prompt


def test_the_policy_s_arms_see_the_same_prompts(played: dict[Arm, ArmRun]) -> None:
    prompts = {arm: [row.prompt for row in one.rows] for arm, one in played.items()}
    edits = {arm: [row.edits for row in one.rows] for arm, one in played.items()}
    policed = [arm for arm in played if arm.edits]
    assert len({tuple(prompts[arm]) for arm in policed}) == 1
    assert len({tuple(edits[arm]) for arm in policed}) == 1
    assert sum(edits[Arm.AMORTIZE]) == 6
    assert sum(prompts[Arm.AMORTIZE]) < sum(prompts[Arm.APPEND_ONLY])


def test_a_prefix_cache_computes_what_forget_computes(played: dict[Arm, ArmRun]) -> None:
    assert compute(played[Arm.PREFIX_CACHE]) == compute(played[Arm.FORGET])
    assert played[Arm.PREFIX_CACHE].rows[-1].reasons == {}
    assert played[Arm.FORGET].rows[-1].modes == {Mode.FORGET: 1}


def test_splicing_computes_less(played: dict[Arm, ArmRun]) -> None:
    amortize, repair = played[Arm.AMORTIZE], played[Arm.REPAIR]
    edited = [row.turn - 1 for row in amortize.rows if row.suffix]
    assert edited
    for turn in edited:
        assert amortize.rows[turn].spliced > 0
        assert amortize.rows[turn].recomputed == 0
        assert repair.rows[turn].modes == {Mode.REPAIR: 1}
        assert amortize.rows[turn].reasons == {Reason.ASKED: 1}
    assert sum(compute(amortize)) < sum(compute(repair)) < sum(compute(played[Arm.FORGET]))
    assert sum(row.recomputed for row in repair.rows) > 0


def test_arms_do_not_profit_from_one_another(run: Run, counting: Engines) -> None:
    together = by_arm(play(run, ALL_ARMS, POLICY, counting))
    for arm in ALL_ARMS:
        [alone] = play(run, [arm], POLICY, counting)
        assert compute(alone) == compute(together[arm])


def test_runs_do_not_profit_from_one_another(run: Run, counting: Engines) -> None:
    first, second = (by_arm(play(run, ALL_ARMS, POLICY, counting)) for _ in range(2))
    assert {a: compute(p) for a, p in first.items()} == {a: compute(p) for a, p in second.items()}


@pytest.mark.parametrize("turns", [1, 4, 99])
def test_max_turns(run: Run, counting: Engines, turns: int) -> None:
    told: list[tuple[int, int]] = []
    [played] = play(
        run,
        [Arm.AMORTIZE],
        POLICY,
        counting,
        max_turns=turns,
        on_turn=lambda done, of: told.append((done, of)),
    )
    assert played.turns == len(played.rows) == min(turns, 9)
    assert told == [(n, min(turns, 9)) for n in range(1, min(turns, 9) + 1)]


def test_with_a_model_every_turn_is_timed(run: Run, running: Engines) -> None:
    played = by_arm(play(run, ALL_ARMS, POLICY, running))
    counted = {arm: [row.prompt for row in one.rows] for arm, one in played.items()}
    assert all(len(prompts) == 9 for prompts in counted.values())
    for one in played.values():
        assert all(row.ttft_ms is not None and row.ttft_ms > 0 for row in one.rows)
    assert played[Arm.AMORTIZE].rows[-1].spliced > 0


def test_counting_gives_the_model_s_figures(run: Run, counting: Engines, running: Engines) -> None:
    counted, ran = (by_arm(play(run, ALL_ARMS, POLICY, e)) for e in (counting, running))
    for arm in ALL_ARMS:
        assert compute(counted[arm]) == compute(ran[arm]), arm


def test_a_run_that_outgrows_its_context_ends_there(
    runs_file: Callable[..., Path], running: Engines
) -> None:
    [long] = Workload([runs_file(14, chars=900)])
    played = by_arm(play(long, [Arm.APPEND_ONLY, Arm.AMORTIZE], CUT, running))
    ended = played[Arm.APPEND_ONLY]
    assert ended.ended is not None
    assert ended.ended.kind == "ContextOverflow"
    assert "do not fit the model's context" in ended.ended.detail
    assert 0 < len(ended.rows) < ended.turns == 14
    # The edited arm goes on: its prompts are shorter.
    assert played[Arm.AMORTIZE].ended is None
    assert len(played[Arm.AMORTIZE].rows) == 14


def test_when_all_arms_have_ended_the_run_has(
    runs_file: Callable[..., Path], running: Engines
) -> None:
    [long] = Workload([runs_file(14, chars=900)])
    told: list[int] = []
    [played] = play(
        long, [Arm.APPEND_ONLY], CUT, running, on_turn=lambda done, of: told.append(done)
    )
    assert told == list(range(1, len(played.rows) + 2))


def test_a_policy_that_raises_is_skipped_that_turn(run: Run, counting: Engines) -> None:
    @policy
    def broken(seen: Trajectory) -> list[Edit]:
        raise RuntimeError("no")

    [played] = play(run, [Arm.AMORTIZE], broken, counting)
    assert len(played.rows) == 9
    [failed] = played.failed  # and no warning, which would name the replay's own lines
    assert (failed.policy, failed.turns) == ("broken", 9)
    assert failed.error.startswith("RuntimeError: no (test_play.py, line ")
    assert sum(row.edits for row in played.rows) == 0


policies = st.sampled_from(
    [
        "keep_last:n=1",
        "keep_last:n=0,polling=3",
        "truncate_older_than:n=1,max_chars=10",
        "drop_failed_calls:after=1",
        "stale_reads",
        "keep_last:n=2+drop_failed_calls",
    ]
)
steps = st.lists(st.text("ab \n", max_size=60), min_size=1, max_size=6)


@settings(deadline=None, max_examples=20)
@given(spec=policies, outputs=steps, failed=st.sets(st.integers(0, 5)))
def test_any_run_adds_up(
    counting: Engines, spec: str, outputs: list[str], failed: set[int]
) -> None:
    messages = [{"role": "user", "content": "q"}]
    for number, output in enumerate(outputs):
        call = {"id": str(number), "function": {"name": "bash", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        result = {"role": "tool", "tool_call_id": str(number), "content": output}
        messages.append({**result, "is_error": True} if number in failed else result)
    messages.append({"role": "assistant", "content": "done"})
    run = Run("made", 0, Recording("made", "openai-chat", tuple(messages)))
    chosen: Policy = parse(spec)
    played = by_arm(play(run, ALL_ARMS, chosen, counting))
    assert compute(played[Arm.PREFIX_CACHE]) == compute(played[Arm.FORGET])
    for one in played.values():
        assert len(one.rows) == len(outputs) + 1
        for row in one.rows:
            assert row.prompt == row.exact + row.spliced + row.recomputed + row.prefilled
