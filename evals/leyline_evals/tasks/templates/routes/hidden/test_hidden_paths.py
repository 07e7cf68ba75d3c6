from routes.paths import distances, path, reachable

LINE = {"p": {"q": 2}, "q": {"p": 2, "r": 2}, "r": {"q": 2, "s": 5}, "s": {}}
RING = {str(n): {str((n + 1) % 8): 1, str((n + 3) % 8): 2} for n in range(8)}


def test_distances():
    assert distances(LINE, "p") == {"p": 0, "q": 2, "r": 4, "s": 9}
    assert distances(LINE, "s") == {"s": 0}
    assert distances(RING, "0") == {"0": 0, "1": 1, "2": 2, "3": 2, "4": 3, "5": 4, "6": 4, "7": 5}


def test_path():
    assert path(LINE, "p", "s") == ["p", "q", "r", "s"]
    assert path(LINE, "s", "p") == []
    for end in RING:
        way = path(RING, "0", end)
        assert way[0] == "0"
        assert way[-1] == end
        assert sum(RING[one][other] for one, other in zip(way, way[1:])) == distances(RING, "0")[end]


def test_reachable():
    assert reachable(LINE, "p", 3) == ["q"]
    assert reachable(LINE, "r", 5) == ["q", "p", "s"]
    assert reachable(LINE, "s", 99) == []
