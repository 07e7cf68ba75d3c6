from logbook.counts import by, errors_share, quantile, top


def record(level, **fields):
    return {"at": 3, "level": level, "part": "p", "fields": fields}


def test_by():
    records = [record("WARN", user="x"), record("WARN", user="x"), record("INFO")]
    assert by(records, "level") == {"WARN": 2, "INFO": 1}
    assert by(records, "user") == {"x": 2}
    assert by(records, "at") == {3: 3}
    assert by([], "user") == {}


def test_top():
    assert top({}, 3) == []
    assert top({"x": 2, "y": 3, "a": 2}, 5) == ["y", "a", "x"]
    assert top({"x": 2, "y": 3, "a": 2}, 1) == ["y"]


def test_quantile():
    values = list(range(1, 101))
    assert [quantile(values, share) for share in (0, 1, 50, 99, 100)] == [1, 1, 50, 99, 100]
    assert quantile([3, 9], 51) == 9
    assert quantile([9, 3], 50) == 3


def test_errors_share():
    assert errors_share([record("ERROR")] * 2 + [record("DEBUG")]) == 66
    assert errors_share([record("WARN")]) == 0
