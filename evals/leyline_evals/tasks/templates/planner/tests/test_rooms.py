from planner.rooms import free, longest_gap, suiting

ROOMS = {
    "hall": {"seats": 40, "has": ["screen", "stage"]},
    "nook": {"seats": 4, "has": []},
    "den": {"seats": 8, "has": ["screen"]},
}
BOOKINGS = [
    {"room": "den", "span": (540, 600), "name": "a"},
    {"room": "den", "span": (660, 690), "name": "b"},
]


def test_free():
    assert free(BOOKINGS, "den", (600, 660))
    assert not free(BOOKINGS, "den", (599, 610))
    assert free(BOOKINGS, "hall", (540, 600))


def test_suiting():
    assert suiting(ROOMS, BOOKINGS, 4, (600, 630)) == ["nook", "den", "hall"]
    assert suiting(ROOMS, BOOKINGS, 5, (540, 630)) == ["hall"]
    assert suiting(ROOMS, BOOKINGS, 1, (600, 630), ["screen"]) == ["den", "hall"]


def test_longest_gap():
    assert longest_gap(BOOKINGS, "den", 480, 720) == (480, 540)
    assert longest_gap(BOOKINGS, "nook", 1, 9) == (1, 9)
    assert longest_gap(BOOKINGS, "den", 540, 600) is None
