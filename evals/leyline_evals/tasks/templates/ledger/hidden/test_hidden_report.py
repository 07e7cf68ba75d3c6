from ledger.report import by_tag, largest, statement


def test_by_tag():
    entries = [{"tags": ["a", "b", "c"], "cents": 11}, {"tags": ["b"], "cents": -4}]
    assert by_tag(entries) == {"a": 4, "b": 0, "c": 3}
    assert by_tag([{"tags": [], "cents": 2}, {"tags": [], "cents": 3}]) == {"other": 5}


def test_largest():
    assert largest({"x": 1, "y": 2}, 1) == [("y", 2)]
    assert largest({"x": 1, "w": 1, "y": 2}, 9) == [("y", 2), ("w", 1), ("x", 1)]


def test_statement():
    lines = ["# 2022", "2022-05-01 | t | 2 | a to b", "2022-06-01 | u | 1.5 | b to c"]
    assert statement(lines, "2022-05-01", "2022-06-01", {"a": 200}) == [
        "2022-05-01 to 2022-06-01: 2 entries",
        "a                -2.00",
        "b                 0.50",
        "c                 1.50",
        "#t                2.00",
        "#u                1.50",
    ]
    assert statement(lines, "2022-05-01", "2022-06-01")[-1] == "overdrawn: a"
    assert statement([], "2022-01-01", "2022-01-02") == ["2022-01-01 to 2022-01-02: 0 entries"]
