from planner.clock import clock, minutes, rounded


def test_minutes():
    expected = {"0:00": 0, "8am": 480, "11:45PM": 1425, " 23:59 ": 1439, "1:01pm": 781}
    assert {text: minutes(text) for text in expected} == expected


def test_clock():
    assert [clock(n) for n in (0, 59, 60, 1439, 1500)] == ["00:00", "00:59", "01:00", "23:59", "01:00"]


def test_rounded():
    for total in range(0, 60):
        assert rounded(total, 7) % 7 == 0
        assert 0 <= total - rounded(total, 7) < 7
        assert rounded(total, 7, up=True) % 7 == 0
        assert 0 <= rounded(total, 7, up=True) - total < 7
