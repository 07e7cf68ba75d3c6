from sheets.groups import grouped, mean, median, pivot


def test_grouped():
    rows = [{"k": key, "i": i} for i, key in enumerate("zazb")]
    assert {key: [row["i"] for row in group] for key, group in grouped(rows, "k").items()} == {
        "z": [0, 2],
        "a": [1],
        "b": [3],
    }
    assert list(grouped(rows, "k")) == ["z", "a", "b"]


def test_mean():
    assert mean([]) is None
    assert mean([0, 0]) == 0
    assert mean([3, 5, None, 10]) == 6


def test_median():
    assert median([9]) == 9
    assert median([9, 1]) == 5
    assert median([1, 2, 9, 3, 8]) == 3
    assert median([None, 6, 2, 2, 4]) == 3


def test_pivot():
    rows = [{"a": 1, "b": "x", "v": 2.5}, {"a": 1, "b": "x", "v": 0.5}, {"a": 2, "b": "y", "v": None}]
    assert pivot(rows, "a", "b", "v") == {1: {"x": 3.0}, 2: {"y": 0}}
    assert pivot(rows, "b", "a", "v") == {"x": {1: 3.0}, "y": {2: 0}}
