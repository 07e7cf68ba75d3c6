from stock.pricing import cost, rebate, shipping


def test_rebate():
    assert [rebate(n) for n in (0, 11, 51, 99, 101)] == [0, 5, 12, 12, 20]
    assert rebate(3, [(2, 1), (3, 7)]) == 7


def test_cost():
    assert cost(99, 1) == 99
    assert cost(7, 10) == 66
    assert cost(333, 50) == 14652
    assert cost(10, 2, [(2, 50)]) == 10


def test_shipping():
    assert shipping(0, 0) == 490
    assert shipping(10, 3000) == 640
    assert shipping(10, 3001) == 790
    assert shipping(10, 2999, 10) == 0
    assert shipping(9, 5000, 10) == 940
