from routes.paths import distances, path, reachable

ROADS = {
    "a": {"b": 7, "c": 3},
    "b": {"a": 7, "d": 2},
    "c": {"a": 3, "b": 1},
    "d": {"b": 2},
    "e": {"a": 1},
}


def test_distances():
    assert distances(ROADS, "a") == {"a": 0, "b": 4, "c": 3, "d": 6}
    assert distances(ROADS, "d") == {"d": 0, "b": 2, "a": 9, "c": 12}


def test_path():
    assert path(ROADS, "a", "d") == ["a", "c", "b", "d"]
    assert path(ROADS, "e", "c") == ["e", "a", "c"]
    assert path(ROADS, "a", "e") == []
    assert path(ROADS, "a", "a") == ["a"]


def test_reachable():
    assert reachable(ROADS, "a", 4) == ["c", "b"]
    assert reachable(ROADS, "a", 6) == ["c", "b", "d"]
