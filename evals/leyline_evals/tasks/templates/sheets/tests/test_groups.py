from sheets.groups import grouped, mean, median, pivot

ROWS = [
    {"k": "b", "m": 1, "v": 5},
    {"k": "a", "m": 1, "v": None},
    {"k": "b", "m": 2, "v": 7},
    {"k": "b", "m": 1, "v": 1},
]


def test_grouped():
    groups = grouped(ROWS, "k")
    assert list(groups) == ["b", "a"]
    assert [row["v"] for row in groups["b"]] == [5, 7, 1]


def test_mean():
    assert mean([1, None, 2]) == 1.5
    assert mean([None]) is None


def test_median():
    assert median([5, 1, None, 3]) == 3
    assert median([4, 1, 3, 2]) == 2.5
    assert median([]) is None


def test_pivot():
    assert pivot(ROWS, "k", "m", "v") == {"b": {1: 6, 2: 7}, "a": {1: 0}}
