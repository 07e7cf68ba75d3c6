from sheets.rows import ordered, read, where


def test_read():
    assert read("a,b,c\n1\n,2,3") == [{"a": 1, "b": None, "c": None}, {"a": None, "b": 2, "c": 3}]
    assert read(" only \n") == []
    assert read("x|y\nyes|1.5", "|") == [{"x": True, "y": 1.5}]


def test_where():
    rows = [{"n": n} for n in (0, 1, 2, 3, None)]
    assert [row["n"] for row in where(rows, "n", 1, 2)] == [1, 2]
    assert [row["n"] for row in where(rows, "n", least=0)] == [0, 1, 2, 3]
    assert [row["n"] for row in where(rows, "n", most=0)] == [0]


def test_ordered():
    rows = [{"n": 2, "i": 0}, {"n": 5, "i": 1}, {"n": 2, "i": 2}, {"n": None, "i": 3}]
    assert [row["i"] for row in ordered(rows, "n")] == [0, 2, 1, 3]
    assert [row["i"] for row in ordered(rows, "n", True)] == [1, 0, 2, 3]
    assert ordered([], "n") == []
