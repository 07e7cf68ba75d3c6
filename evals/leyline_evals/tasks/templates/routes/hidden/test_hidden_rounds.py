from routes.rounds import legs, order, plan

STAR = {"hub": {"n": 5, "e": 3, "s": 5}, "n": {"hub": 5}, "e": {"hub": 3}, "s": {"hub": 5}, "o": {}}


def test_order():
    assert order(STAR, "hub", ["s", "n", "e"]) == ["e", "n", "s"]
    assert order(STAR, "n", ["hub", "o", "s"]) == ["hub", "s"]
    assert order(STAR, "hub", []) == []


def test_legs():
    assert legs(STAR, "n", ["e", "hub"]) == [8, 3]
    far = {"a": {"b": 130}, "b": {"a": 130}}
    assert legs(far, "a", ["b", "a"]) == [145, 145]


def test_plan():
    planned = plan(STAR, "hub", {"e": 2, "n": 30, "o": 1}, 0)
    assert planned == {
        "stops": ["e", "n"],
        "way": ["hub", "e", "hub", "n"],
        "reached": [3, 21],
        "late": {"e": 1},
        "missed": ["o"],
    }
    planned = plan(STAR, "hub", {"e": 99, "n": 99}, 10, ["e"])
    assert (planned["stops"], planned["reached"], planned["missed"]) == (["n"], [15], ["e"])
