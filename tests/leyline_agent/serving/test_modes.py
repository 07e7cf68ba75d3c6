"""The mode used: never weaker than asked, and one reason why."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode, check, kept_runs
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Reason
from leyline_agent.serving.models.probe import ModelFacts
from leyline_agent.serving.models.rope import RopeSpec
from leyline_agent.serving.modes import ModeRules, kept_behind, settle
from leyline_agent.serving.repair import Repair, RepairConfig

ABLE = ModelFacts((), RopeSpec(torch.ones(1, dtype=torch.float64), "half"))
UNABLE = ModelFacts((), None, Reason.LAYER_KIND, "sliding-window layers")
NO_GATE = ModeRules(gate_tokens=0, gate_share=2.0)
LENGTH = 400
SMALL_REPAIR = RepairConfig(window=4, max_echo=0, tail=0)


def item(start, end, mode, replacement=()):
    return Lowered(Directive(start, end, tuple(replacement), mode), (0,), mode)


def settled(*items, facts=ABLE, rules=NO_GATE, repair=SMALL_REPAIR, appended=5):
    return settle(range(LENGTH), items, appended, facts, rules, repair)


def used(result):
    return [(i.directive.mode, i.reason) for i in result.items]


@pytest.mark.parametrize("mode", Mode)
def test_as_asked(mode):
    result = settled(item(10, 20, mode))
    assert used(result) == [(mode, Reason.ASKED)]
    assert bool(result.repair.positions) == (mode is Mode.REPAIR)


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        (ModeRules(floor=Mode.REPAIR, gate_tokens=0, gate_share=2.0), Reason.USER_FLOOR),
        (ModeRules(fidelity_floor=Mode.REPAIR, gate_tokens=0, gate_share=2), Reason.FIDELITY_FLOOR),
    ],
)
def test_floors_strengthen_what_is_weaker(rules, reason):
    result = settled(item(10, 20, Mode.AMORTIZE), item(50, 60, Mode.REPAIR), rules=rules)
    assert used(result) == [(Mode.REPAIR, reason), (Mode.REPAIR, Reason.ASKED)]
    assert result.items[0].asked is Mode.AMORTIZE


def test_a_model_that_cannot_be_spliced_forgets():
    result = settled(item(10, 20, Mode.AMORTIZE), item(50, 60, Mode.FORGET), facts=UNABLE)
    assert used(result) == [(Mode.FORGET, Reason.LAYER_KIND), (Mode.FORGET, Reason.ASKED)]
    assert result.repair == Repair()


def test_behind_a_forget_everything_is_forget():
    cuts = [item(10, 20, Mode.AMORTIZE), item(50, 60, Mode.FORGET), item(90, 99, Mode.REPAIR)]
    assert used(settled(*cuts)) == [
        (Mode.AMORTIZE, Reason.ASKED),
        (Mode.FORGET, Reason.ASKED),
        (Mode.FORGET, Reason.BEHIND_FORGET),
    ]


def test_a_floor_can_make_the_forget_that_others_stand_behind():
    rules = ModeRules(floor=Mode.FORGET)
    result = settled(item(10, 20, Mode.AMORTIZE), item(50, 60, Mode.REPAIR), rules=rules)
    assert [mode for mode, _ in used(result)] == [Mode.FORGET, Mode.FORGET]


def test_next_to_nothing_behind_an_edit_is_computed():
    rules = ModeRules(gate_tokens=16, gate_share=2.0)
    near, far = item(LENGTH - 26, LENGTH - 16, Mode.AMORTIZE), item(10, 20, Mode.AMORTIZE)
    assert used(settled(near, rules=rules)) == [(Mode.FORGET, Reason.COST_GATE)]
    assert used(settled(far, near, rules=rules)) == [
        (Mode.AMORTIZE, Reason.ASKED),
        (Mode.FORGET, Reason.COST_GATE),
    ]
    further = item(LENGTH - 27, LENGTH - 17, Mode.AMORTIZE)
    assert used(settled(further, rules=rules)) == [(Mode.AMORTIZE, Reason.ASKED)]


def test_nothing_behind_an_edit_is_any_mode_to_the_letter():
    cut = item(LENGTH - 10, LENGTH, Mode.AMORTIZE)
    assert used(settled(cut, rules=ModeRules())) == [(Mode.AMORTIZE, Reason.NO_SUFFIX)]


def test_a_repair_of_nearly_everything_is_forget():
    rules = ModeRules(gate_tokens=0, gate_share=0.75)
    cut = item(10, LENGTH - 100, Mode.REPAIR)
    least = settled(cut, rules=rules, repair=RepairConfig(window=75, max_echo=0, tail=0))
    assert used(least) == [(Mode.REPAIR, Reason.ASKED)]
    most = settled(cut, rules=rules, repair=RepairConfig(window=76, max_echo=0, tail=0))
    assert used(most) == [(Mode.FORGET, Reason.COST_GATE)]
    assert most.repair == Repair()


def test_edits_in_front_of_such_a_repair_keep_their_mode():
    rules = ModeRules(gate_tokens=0, gate_share=0.75)
    cuts = [item(10, 20, Mode.AMORTIZE), item(200, 300, Mode.REPAIR), item(350, 360, Mode.REPAIR)]
    result = settled(*cuts, rules=rules, repair=RepairConfig(window=200))
    assert used(result) == [
        (Mode.AMORTIZE, Reason.ASKED),
        (Mode.FORGET, Reason.COST_GATE),
        (Mode.FORGET, Reason.BEHIND_FORGET),
    ]


@st.composite
def batches(draw):
    cuts = sorted(draw(st.lists(st.integers(0, LENGTH), max_size=10)))
    items = [
        item(start, end, draw(st.sampled_from(Mode)), draw(st.lists(st.integers(0, 9), max_size=3)))
        for start, end in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    legal = []
    for one in items:
        if not legal or one.directive[:2] != legal[-1].directive[:2]:
            legal.append(one)
    check([one.directive for one in legal], LENGTH)
    return legal


rules = st.builds(
    ModeRules,
    floor=st.sampled_from(Mode),
    fidelity_floor=st.none() | st.sampled_from(Mode),
    gate_tokens=st.integers(0, 60),
    gate_share=st.floats(0, 2),
)
repairs = st.builds(RepairConfig, window=st.integers(0, 40), tail=st.integers(0, 100))


@given(batches(), rules, repairs, st.sampled_from([ABLE, UNABLE]), st.integers(0, 50))
@settings(deadline=None, max_examples=200)
def test_properties(items, rules, repair, facts, appended):
    previous = [t % 7 for t in range(LENGTH)]
    result = settle(previous, items, appended, facts, rules, repair)
    assert len(result.items) == len(items)
    forgetting = False
    for before, after in zip(items, result.items, strict=True):
        asked, mode = before.directive.mode, after.directive.mode
        assert after.directive[:3] == before.directive[:3]
        assert (after.asked, after.edits) == (before.asked, before.edits)
        floors = [asked, rules.floor, rules.fidelity_floor or Mode.AMORTIZE]
        floors += [Mode.FORGET] if forgetting or facts.refusal else []
        assert mode.strength >= max(m.strength for m in floors)
        if mode is not asked:
            assert after.reason not in (Reason.ASKED, Reason.NO_SUFFIX)
        if after.reason is Reason.NO_SUFFIX:
            assert kept_behind(result.items, result.items.index(after), LENGTH) == 0
        forgetting = forgetting or mode is Mode.FORGET
    check_repair(result, rules, repair)


def check_repair(result, rules, repair):
    """The boundary window is promised to every REPAIR, and the budget kept."""
    directives = result.directives
    modes = [d.mode for d in directives]
    if Mode.REPAIR not in modes:
        assert not result.repair.positions
        return
    suffix = kept_behind(result.items, modes.index(Mode.REPAIR), LENGTH)
    assert len(result.repair.positions) <= rules.gate_share * suffix
    stop = next((d.start for d in directives if d.mode is Mode.FORGET), LENGTH)
    behind = {run.start: run for run in kept_runs(directives, LENGTH)}
    for directive in directives:
        run = behind.get(directive.end)
        if directive.mode is Mode.REPAIR and run is not None and run.start < stop:
            end = min(run.end, run.start + repair.window)
            window = {old + run.shift for old in range(run.start, end)}
            assert window <= result.repair.positions
