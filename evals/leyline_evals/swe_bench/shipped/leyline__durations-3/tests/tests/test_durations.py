import pytest

from durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (45, "45s"), (90, "1m30s"), (5400, "1h30m"), (172_801, "2d1s")]
)
def test_there_and_back(seconds, text):
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "1m2h", "1m1m", "1.5h", "1h,30m"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(("seconds", "text"), [(-90, "-1m30s"), (-86_400, "-1d"), (-1, "-1s")])
def test_negative_durations_there_and_back(seconds, text):
    assert format_duration(seconds) == text
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["1m-30s", "--1m", "-", "-m"])
def test_a_sign_stands_before_the_whole(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


def test_every_minute_of_two_days():
    for seconds in range(-86_400, 86_401, 61):
        assert parse_duration(format_duration(seconds)) == seconds
