from stock.levels import low, receive, take


def test_receive_adds():
    levels = {"bolt": 3}
    assert receive(levels, "bolt", 4) == {"bolt": 7}
    assert receive(levels, "nut", 2) == {"bolt": 3, "nut": 2}
    assert levels == {"bolt": 3}


def test_take_gives_what_is_there():
    assert take({"bolt": 3}, "bolt", 2) == ({"bolt": 1}, 2)
    assert take({"bolt": 3}, "bolt", 5) == ({}, 3)
    assert take({"bolt": 3}, "nut", 1) == ({"bolt": 3}, 0)


def test_low_sorts_by_share():
    assert low({"a": 5, "b": 1, "c": 9}, {"a": 10, "b": 10, "c": 9, "d": 1}) == ["d", "b", "a"]
