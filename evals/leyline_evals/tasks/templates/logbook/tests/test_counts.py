from logbook.counts import by, errors_share, quantile, top


def record(level, part, **fields):
    return {"at": 0, "level": level, "part": part, "fields": fields}


def test_by():
    records = [record("INFO", "db", host="a"), record("WARN", "db"), record("INFO", "web", host="b")]
    assert by(records, "part") == {"db": 2, "web": 1}
    assert by(records, "host") == {"a": 1, "b": 1}


def test_top():
    assert top({"a": 1, "c": 5, "b": 5}, 2) == ["b", "c"]


def test_quantile():
    assert quantile([4, 1, 3, 2], 50) == 2
    assert quantile([4, 1, 3, 2], 90) == 4
    assert quantile([7], 0) == 7


def test_errors_share():
    assert errors_share([record("ERROR", "x"), record("INFO", "x"), record("WARN", "x")]) == 33
    assert errors_share([]) == 0
