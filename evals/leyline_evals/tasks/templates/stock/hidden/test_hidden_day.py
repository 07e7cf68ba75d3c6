from stock.day import backlog, reorder, run


def test_reorder():
    assert reorder({"a": 9}, {"a": 10}, {"a": 4}) == {"a": 4}
    assert reorder({"a": 2}, {"a": 10}, {"a": 4}) == {"a": 8}
    assert reorder({"a": 1}, {"a": 4}, {}) == {"a": 3}
    assert reorder({"a": 10}, {"a": 10}, {}) == {}


def test_run():
    orders = [
        {"name": "x", "urgent": False, "day": 2, "lines": [("a", 2)]},
        {"name": "y", "urgent": False, "day": 1, "lines": [("a", 2), ("b", 1)]},
    ]
    start = {"a": 1}
    levels, bills = run(start, [("a", 1), ("c", 1)], orders, {"a": 50}, {"a": 10})
    assert levels == {"c": 1}
    assert bills == {
        "y": {"cents": 590, "missing": {"b": 1}},
        "x": {"cents": 0, "missing": {"a": 2}},
    }
    assert start == {"a": 1}


def test_backlog():
    bills = {"x": {"missing": {"a": 1}}, "y": {"missing": {"a": 2, "b": 1}}}
    assert backlog(bills) == {"a": 3, "b": 1}
