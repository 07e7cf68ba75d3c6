from ledger.accounts import balances, lowest, overdrawn


def move(source, target, cents):
    return {"day": "2024-01-01", "tags": [], "cents": cents, "source": source, "target": target}


def test_balances_move_money():
    held = balances([move("bank", "shop", 500), move("shop", "bank", 120)], {"bank": 1000})
    assert held == {"bank": 620, "shop": 380}


def test_balances_leave_the_opening_alone():
    opening = {"bank": 10}
    balances([move("bank", "shop", 5)], opening)
    assert opening == {"bank": 10}


def test_lowest_counts_every_step():
    moves = [move("bank", "shop", 500), move("shop", "bank", 700), move("bank", "shop", 100)]
    assert lowest(moves, "bank", 300) == -200
    assert lowest(moves, "shop") == -200
    assert lowest([], "bank", 7) == 7


def test_overdrawn_knows_limits():
    assert overdrawn({"b": -100, "a": -101, "c": 5, "d": -1}, {"b": 100, "a": 100}) == ["a", "d"]
