from sheets.tables import joined, report, summary, written
from tests.scale import SIZE

PEOPLE = "name,town\nann,oslo\nbob,rome\ncid,oslo\n"


def test_joined():
    left = [{"k": 1, "a": "x"}, {"k": 2, "a": "y"}]
    right = [{"k": 1, "b": "p", "a": "q"}, {"k": 1, "b": "r"}]
    assert joined(left, right, "k") == [{"k": 1, "b": "p", "a": "x"}, {"k": 2, "a": "y"}]


def test_summary():
    rows = [{"t": "x", "n": 1}, {"t": "y", "n": 8}, {"t": "x", "n": 2}, {"t": "x", "n": 6}]
    assert summary(rows, "t", "n") == [
        {"t": "y", "count": 1, "mean": 8, "median": 8},
        {"t": "x", "count": 3, "mean": 3, "median": 2},
    ]


def test_written():
    rows = [{"name": "ann", "n": 1}, {"name": "b", "n": 200}]
    assert written(rows) == ["name n", "ann    1", "b    200"]
    assert written([]) == []


def test_report():
    visits = "name,cost\nann,4\nbob,9\ncid,8\nann,-\n"
    assert report(PEOPLE, visits, "town") == [
        "town count mean median",
        "rome     1 9.00      9",
        "oslo     3 6.00   6.00",
    ]


def test_report_of_many_visits():
    visits = "name,cost\n" + "\n".join(
        f"{'ann' if n % 2 else 'bob'},{10 + n % 2}" for n in range(4 * SIZE)
    )
    assert report(PEOPLE, visits, "town") == [
        "town count mean  median",
        f"oslo {2 * SIZE:>5} 11.00  11.00",
        f"rome {2 * SIZE:>5} 10.00  10.00",
    ]
