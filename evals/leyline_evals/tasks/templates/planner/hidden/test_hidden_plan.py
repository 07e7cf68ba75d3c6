from planner.plan import place, plan, request, table

ROOMS = {"x": {"seats": 3, "has": []}, "y": {"seats": 5, "has": ["tv"]}}


def test_request():
    asked = request("n 2 45 1pm-14:30")
    assert asked["window"] == (780, 870)
    assert (asked["people"], asked["length"], asked["needs"]) == (2, 45, [])


def test_place():
    taken = [{"room": "x", "span": (480, 600), "name": "t"}]
    assert place(ROOMS, taken, request("n 2 30 8:00-9:00"))["room"] == "y"
    assert place({"x": ROOMS["x"]}, taken, request("n 2 30 8:00-10:30"))["span"] == (600, 630)
    assert place({"x": ROOMS["x"]}, taken, request("n 2 30 8:00-10:29")) is None
    assert place(ROOMS, [], request("n 2 60 8:00-9:00"))["span"] == (480, 540)


def test_plan():
    lines = ["q 4 30 8:00-8:30", "p 4 30 8:00-9:00", "r 1 60 8:00-9:00 tv"]
    bookings, left = plan(ROOMS, lines)
    assert [booking["name"] for booking in bookings] == ["r"]
    assert left == ["p", "q"]
    bookings, left = plan(ROOMS, lines[:2])
    assert left == ["q"]


def test_table():
    bookings = [
        {"room": "b", "span": (600, 660), "name": "one"},
        {"room": "a", "span": (600, 660), "name": "two"},
        {"room": "c", "span": (60, 75), "name": "three"},
    ]
    assert table(bookings) == ["01:00-01:15 c three", "10:00-11:00 a two", "10:00-11:00 b one"]
