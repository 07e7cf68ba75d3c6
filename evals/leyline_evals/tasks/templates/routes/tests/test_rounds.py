from routes.rounds import legs, order, plan
from tests.scale import SIZE

ROADS = {
    "a": {"b": 30, "c": 90},
    "b": {"a": 30, "c": 40, "d": 200},
    "c": {"a": 90, "b": 40},
    "d": {"b": 200},
    "x": {"a": 1},
}
CHAIN = {
    f"t{n:02d}": {f"t{m:02d}": 10 for m in (n - 1, n + 1) if 0 <= m <= SIZE} for n in range(SIZE + 1)
}


def test_order():
    assert order(ROADS, "a", ["d", "c", "b", "x"]) == ["b", "c", "d"]


def test_legs():
    assert legs(ROADS, "a", ["b", "c", "d"]) == [30, 40, 240 + 15]


def test_plan():
    assert plan(ROADS, "a", {"c": 100, "d": 300, "x": 50}) == {
        "stops": ["c", "d"],
        "way": ["a", "b", "c", "b", "d"],
        "reached": [70, 335],
        "late": {"d": 35},
        "missed": ["x"],
    }


def test_plan_along_a_chain():
    planned = plan(CHAIN, "t00", {town: 20 * int(town[1:]) for town in CHAIN if town != "t00"}, 5)
    assert planned["way"] == sorted(CHAIN)
    assert planned["reached"] == [20 * n - 5 for n in range(1, SIZE + 1)]
    assert planned["late"] == {}
    assert planned["missed"] == []
