from ledger.accounts import balances, lowest, overdrawn


def move(source, target, cents):
    return {"day": "", "tags": [], "cents": cents, "source": source, "target": target}


MOVES = [move("a", "b", 10), move("b", "c", 4), move("c", "a", 3), move("a", "a", 9)]


def test_balances():
    assert balances(MOVES) == {"a": -7, "b": 6, "c": 1}
    opening = {"a": 100, "z": 1}
    assert balances(MOVES, opening) == {"a": 93, "b": 6, "c": 1, "z": 1}
    assert opening == {"a": 100, "z": 1}


def test_lowest():
    assert lowest(MOVES, "a") == -10
    assert lowest(MOVES, "b") == 0
    assert lowest(MOVES, "b", -2) == -2
    assert lowest([move("b", "a", 5), move("a", "b", 8)], "b", 1) == -4


def test_overdrawn():
    assert overdrawn({"x": 0, "y": -1, "z": -5}, {"z": 5}) == ["y"]
    assert overdrawn({"x": -6, "b": -6}, {"x": 5, "b": 7}) == ["x"]
