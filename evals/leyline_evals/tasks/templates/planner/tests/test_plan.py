from planner.plan import place, plan, request, table
from tests.scale import SIZE

ROOMS = {"den": {"seats": 8, "has": ["screen"]}, "hall": {"seats": 40, "has": []}}


def test_request():
    assert request("team 4 90 9:00-1pm screen") == {
        "name": "team",
        "people": 4,
        "length": 90,
        "window": (540, 780),
        "needs": ["screen"],
    }


def test_place_starts_on_a_quarter():
    asked = request("team 4 60 9:05-10:15")
    assert place(ROOMS, [], asked) == {"room": "den", "span": (555, 615), "name": "team"}
    assert place(ROOMS, [], request("team 4 60 9:05-10:14")) is None


def test_plan_places_long_ones_first():
    bookings, left = plan(ROOMS, ["a 5 30 9:00-10:00", "b 5 60 9:00-10:00", "c 50 30 8:00-18:00"])
    assert table(bookings) == ["09:00-09:30 hall a", "09:00-10:00 den b"]
    assert left == ["c"]


def test_plan_of_a_full_day():
    lines = [f"m{n:03d} 3 30 8:00-20:00 screen" for n in range(SIZE)]
    bookings, left = plan(ROOMS, lines)
    fit = min(SIZE, 24)
    assert [booking["span"] for booking in bookings] == [
        (480 + 30 * n, 510 + 30 * n) for n in range(fit)
    ]
    assert left == [f"m{n:03d}" for n in range(fit, SIZE)]
