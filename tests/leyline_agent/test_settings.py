"""Options of sessions: declared once, told plainly."""

import pytest

import leyline_agent as leyline
from leyline_agent.settings import ResumeOptions, SessionOptions, Settings


def test_every_option_has_a_default_and_a_declaration():
    declared = SessionOptions.__optional_keys__ | ResumeOptions.__optional_keys__
    assert set(Settings.__dataclass_fields__) == declared


@pytest.mark.parametrize("make", [leyline.Session, lambda **given: leyline.wrap(**given)])
def test_an_unknown_option_is_told_with_what_was_meant(make):
    with pytest.raises(TypeError, match="no option 'policy'; did you mean 'policies'"):
        make(policy="keep_all")


@pytest.mark.parametrize("make", [leyline.Session, lambda **given: leyline.wrap(**given)])
def test_a_wrong_value_is_told_where_it_is_given(make):
    with pytest.raises(leyline.LeylineError, match="nothing"):
        make(mode_floor="nothing")


def test_a_mode_floor_is_taken_by_name():
    assert Settings.of({"mode_floor": "forget"}).floor is leyline.Mode.FORGET
    assert Settings.of({}).floor is None


@pytest.mark.parametrize(
    "option",
    [
        {"pinned": [1]},
        {"policy_deadline": "x"},
        {"policy_deadline": -1},
        {"observations": "usr"},
        {"fulfil": 3},
        {"observers": [object()]},
        {"observers": 3},
        {"journal": 5},
        {"journal": __file__ + "/runs"},
    ],
)
def test_an_option_that_does_not_fit_is_told_where_it_is_given(option):
    for given in (leyline.wrap, leyline.Session):
        with pytest.raises(leyline.LeylineError, match=f"{next(iter(option))}"):
            given(policies="keep_all", **option)


def test_recall_and_timing_say_what_they_take():
    with pytest.raises(leyline.LeylineError, match="max_bytes must be at least 1, a whole number"):
        leyline.Recall(max_bytes="big")
    with pytest.raises(leyline.LeylineError, match="timing: "):
        leyline.Timing(pays_within="soon")
