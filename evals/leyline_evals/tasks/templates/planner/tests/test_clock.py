from planner.clock import clock, minutes, rounded


def test_minutes():
    assert minutes("9:30") == 570
    assert minutes("14:05") == 845
    assert minutes("2pm") == 840
    assert minutes("12pm") == 720


def test_clock():
    assert clock(570) == "09:30"
    assert clock(845) == "14:05"
    assert clock(1440) == "00:00"


def test_rounded():
    assert rounded(44, 15) == 30
    assert rounded(44, 15, up=True) == 45
    assert rounded(45, 15, up=True) == 45
