from planner.rooms import free, longest_gap, suiting

ROOMS = {
    "b": {"seats": 6, "has": ["x", "y"]},
    "a": {"seats": 6, "has": ["x"]},
    "c": {"seats": 2, "has": ["x", "y"]},
}
BOOKINGS = [{"room": "a", "span": (10, 20), "name": "m"}, {"room": "a", "span": (40, 45), "name": "n"}]


def test_free():
    assert not free(BOOKINGS, "a", (12, 13))
    assert not free(BOOKINGS, "a", (44, 90))
    assert free(BOOKINGS, "a", (20, 40))
    assert free(BOOKINGS, "b", (12, 13))


def test_suiting():
    assert suiting(ROOMS, BOOKINGS, 3, (0, 10)) == ["a", "b"]
    assert suiting(ROOMS, BOOKINGS, 2, (15, 16), ["x"]) == ["c", "b"]
    assert suiting(ROOMS, [], 6, (15, 16), ["x", "y"]) == ["b"]
    assert suiting(ROOMS, [], 7, (15, 16)) == []


def test_longest_gap():
    assert longest_gap(BOOKINGS, "a", 0, 60) == (20, 40)
    assert longest_gap(BOOKINGS, "a", 5, 15) == (5, 10)
    assert longest_gap(BOOKINGS, "a", 15, 25) == (20, 25)
    assert longest_gap(BOOKINGS, "a", 41, 44) is None
    assert longest_gap([{"room": "a", "span": (3, 4)}], "a", 0, 7) == (0, 3)
