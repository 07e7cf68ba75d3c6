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
