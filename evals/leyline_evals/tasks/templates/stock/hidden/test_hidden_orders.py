from stock.orders import queue, reserve, total


def test_reserve():
    assert reserve({"a": 2}, [("a", 1), ("a", 1)]) == ({}, {"a": 2}, {})
    assert reserve({"a": 2}, [("b", 3), ("b", 1)]) == ({"a": 2}, {}, {"b": 4})
    assert reserve({"a": 9}, []) == ({"a": 9}, {}, {})


def test_total():
    assert total({"a": 1, "b": 2}, {"a": 10, "b": 20}, {"a": 1000, "b": 1000}) == 50 + 640
    assert total({"a": 1}, {"a": 6000}, {}) == 6000
    assert total({"a": 10}, {"a": 10}, {"a": 100}) == 95 + 490


def test_queue():
    orders = [{"name": str(n), "urgent": n % 2 == 1, "day": 9 - n} for n in range(6)]
    assert queue(orders) == ["5", "3", "1", "4", "2", "0"]
    same = [{"name": name, "urgent": False, "day": 1} for name in "cab"]
    assert queue(same) == ["a", "b", "c"]
