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
