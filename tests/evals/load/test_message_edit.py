"""The message-edit workload."""

from __future__ import annotations

import pytest

from leyline_agent.edit import Edit
from leyline_agent.message import text
from leyline_agent.policy import parse
from leyline_agent.trajectory import Trajectory
from leyline_evals.load.message_edit import EditOneMessage, MessageEdit, parse_workload
from leyline_evals.replay.errors import ReplayError
from leyline_evals.replay.workload import Run

SMALL = MessageEdit(sessions=3, turns=4, system=50, turn=20)


def _words(run: Run, at: int) -> int:
    return len(text(run.recording.messages[at]).split())


def test_conversations_have_the_sizes_asked_for() -> None:
    runs = list(SMALL.runs())
    assert len(runs) == 3
    for run in runs:
        assert len(run.turns) == 4
        assert _words(run, 0) == 50
        assert [_words(run, at - 1) for at in run.turns] == [20] * 4


def test_the_system_prompt_is_shared_and_nothing_else() -> None:
    first, second = list(SMALL.runs())[:2]
    assert first.recording.messages[0] == second.recording.messages[0]
    assert first.recording.messages[1] != second.recording.messages[1]


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    def told(seed: int) -> list[object]:
        made = MessageEdit(sessions=1, turns=2, system=5, turn=5, seed=seed)
        return [run.recording.messages for run in made.runs()]

    assert told(1) == told(1) != told(2)


def _edits(run: Run, turn: int) -> list[Edit]:
    return list(EditOneMessage().wants(Trajectory(run.prompt(run.turns[turn]))))  # type: ignore[arg-type]


def test_one_message_but_the_newest_is_edited_a_turn_at_its_length() -> None:
    for run in SMALL.runs():
        assert not _edits(run, 0)
        for turn in range(1, 4):
            (edit,) = _edits(run, turn)
            prompt = run.prompt(run.turns[turn])
            assert edit.end - edit.start == 1
            assert 0 < edit.start < len(prompt) - 1
            (new,) = edit.replacement
            old = prompt[edit.start]
            assert new["role"] == old["role"] != "assistant"
            assert text(new) != text(old)
            assert len(text(new).split()) == len(text(old).split())


def test_every_earlier_message_has_its_turn() -> None:
    many = MessageEdit(sessions=40, turns=4, system=5, turn=5)
    hit = {_edits(run, 3)[0].start for run in many.runs()}
    assert hit == {1, 3, 5}  # the task and the results but the newest


def test_its_policy_is_one_that_can_be_named() -> None:
    assert parse(MessageEdit(seed=7).policy) == EditOneMessage(seed=7)


def test_a_workload_is_parsed_and_written() -> None:
    made = parse_workload("message_edit:sessions=2,turns=3,seed=5")
    assert made == MessageEdit(sessions=2, turns=3, seed=5)
    assert parse_workload(str(made)) == made


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("chat", "no workload 'chat'; there is message_edit"),
        ("message_edit:turns", "'turns' is not key=value"),
        ("message_edit:turns=0", "turns must be a whole number, at least 1"),
        ("message_edit:turn_size=3", "no option 'turn_size'"),
    ],
)
def test_a_wrong_workload_says_what_there_is(spec: str, said: str) -> None:
    with pytest.raises(ReplayError) as told:
        parse_workload(spec)
    assert said in str(told.value)
