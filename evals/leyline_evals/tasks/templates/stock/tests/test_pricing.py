from stock.pricing import cost, rebate, shipping


def test_rebate_steps():
    assert [rebate(count) for count in (1, 9, 10, 49, 50, 100)] == [0, 0, 5, 5, 12, 20]


def test_cost_is_rounded_down():
    assert cost(250, 4) == 1000
    assert cost(33, 11) == 344
    assert cost(100, 100) == 8000


def test_shipping():
    assert shipping(5000, 9000) == 0
    assert shipping(4999, 2000) == 490
    assert shipping(100, 2001) == 640
    assert shipping(100, 4000) == 790
