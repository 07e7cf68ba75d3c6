from stock.levels import low, receive, take


def test_receive():
    start = {"x": 1}
    assert receive(receive(start, "x", 1), "y", 5) == {"x": 2, "y": 5}
    assert start == {"x": 1}


def test_take():
    start = {"x": 4, "y": 1}
    assert take(start, "x", 4) == ({"y": 1}, 4)
    assert take(start, "x", 3) == ({"x": 1, "y": 1}, 3)
    assert take(start, "x", 0) == ({"x": 4, "y": 1}, 0)
    assert take(start, "z", 2) == ({"x": 4, "y": 1}, 0)
    assert start == {"x": 4, "y": 1}


def test_low():
    assert low({"a": 2, "b": 2}, {"a": 2, "b": 3}) == ["b"]
    assert low({}, {"b": 1, "a": 9}) == ["a", "b"]
    assert low({"a": 3, "b": 1}, {"a": 4, "b": 4}) == ["b", "a"]
