from sheets.rows import ordered, read, where

ROWS = [{"n": 3, "t": "x"}, {"n": None, "t": "y"}, {"n": 1, "t": "z"}, {"n": 3, "t": "w"}]


def test_read():
    assert read("n, t\n3, x\n\n4\n") == [{"n": 3, "t": "x"}, {"n": 4, "t": None}]
    assert read("") == []
    assert read("a;b\n1;2", ";") == [{"a": 1, "b": 2}]


def test_where():
    assert [row["t"] for row in where(ROWS, "n", least=3)] == ["x", "w"]
    assert [row["t"] for row in where(ROWS, "n", most=1)] == ["z"]
    assert [row["t"] for row in where(ROWS, "n")] == ["x", "z", "w"]


def test_ordered():
    assert [row["t"] for row in ordered(ROWS, "n")] == ["z", "x", "w", "y"]
    assert [row["t"] for row in ordered(ROWS, "n", falling=True)] == ["x", "w", "z", "y"]
