from stock.orders import queue, reserve, total


def test_reserve_sends_what_is_there():
    levels, sent, missing = reserve({"bolt": 5, "nut": 1}, [("bolt", 3), ("nut", 4), ("bolt", 4)])
    assert levels == {}
    assert sent == {"bolt": 5, "nut": 1}
    assert missing == {"nut": 3, "bolt": 2}


def test_total_has_shipping():
    assert total({}, {}, {}) == 0
    assert total({"bolt": 2}, {"bolt": 100}, {"bolt": 1500}) == 200 + 640
    assert total({"bolt": 60}, {"bolt": 100}, {"bolt": 1500}) == 5280


def test_queue_serves_urgent_first():
    orders = [
        {"name": "a", "urgent": False, "day": 1},
        {"name": "b", "urgent": True, "day": 3},
        {"name": "d", "urgent": False, "day": 1},
        {"name": "c", "urgent": True, "day": 2},
    ]
    assert queue(orders) == ["c", "b", "a", "d"]
