from sheets.tables import joined, report, summary, written


def test_joined():
    left = [{"id": 3, "v": 1}]
    assert joined(left, [], "id") == left
    assert joined(left, [{"id": 3, "w": 2}, {"id": 3, "w": 9}], "id") == [{"id": 3, "w": 2, "v": 1}]


def test_summary():
    rows = [{"g": 1, "n": None}, {"g": 2, "n": 4}, {"g": 3, "n": 6}, {"g": 2, "n": 2}]
    assert summary(rows, "g", "n") == [
        {"g": 3, "count": 1, "mean": 6, "median": 6},
        {"g": 2, "count": 2, "mean": 3, "median": 3},
        {"g": 1, "count": 1, "mean": None, "median": None},
    ]


def test_written():
    rows = [{"a": None, "long": 1.5}, {"a": "xyz", "long": 22}]
    assert written(rows, "|") == ["a  |long", "-  |1.50", "xyz|  22"]


def test_report():
    people = "name,kind\nx,old\ny,new\n"
    assert report(people, "name,cost\ny,1\ny,2\nx,2\n", "kind") == [
        "kind count mean median",
        "old      1 2.00      2",
        "new      2 1.50   1.50",
    ]
