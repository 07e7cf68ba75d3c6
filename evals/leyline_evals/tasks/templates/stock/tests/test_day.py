from stock.day import backlog, reorder, run
from tests.scale import SIZE


def test_reorder_whole_batches():
    assert reorder({"a": 3}, {"a": 10, "b": 4}, {"a": 5}) == {"b": 4, "a": 10}


def test_a_busy_day():
    orders = [
        {"name": f"o{n:03d}", "urgent": n % 5 == 0, "day": n % 7, "lines": [("bolt", 2), ("nut", n % 3)]}
        for n in range(SIZE)
    ]
    levels, bills = run({}, [("bolt", SIZE), ("bolt", SIZE), ("nut", 3 * SIZE)], orders, {"bolt": 10, "nut": 5}, {"nut": 20})
    assert levels == {"nut": 3 * SIZE - sum(n % 3 for n in range(SIZE))}
    assert [bill["cents"] for bill in bills.values()] == [
        510 + 5 * (int(name[1:]) % 3) for name in bills
    ]
    assert backlog(bills) == {}


def test_a_day_with_too_little():
    orders = [
        {"name": "late", "urgent": False, "day": 1, "lines": [("bolt", 12)]},
        {"name": "soon", "urgent": True, "day": 2, "lines": [("bolt", 10), ("nut", 1)]},
    ]
    levels, bills = run({"bolt": 9}, [("bolt", 6)], orders, {"bolt": 100}, {"bolt": 300})
    assert levels == {}
    assert list(bills) == ["soon", "late"]
    assert bills["soon"] == {"cents": 950 + 640, "missing": {"nut": 1}}
    assert bills["late"] == {"cents": 500 + 490, "missing": {"bolt": 7}}
    assert backlog(bills) == {"nut": 1, "bolt": 7}
