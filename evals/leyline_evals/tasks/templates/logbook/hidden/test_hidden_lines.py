from logbook.lines import at_least, fields, read


def test_fields():
    assert fields([]) == {}
    assert fields(["k=", "n=007", "m=1.5", "s=a=b"]) == {"k": "", "n": 7, "m": "1.5", "s": "a=b"}


def test_read():
    assert read("  5   DEBUG   io   x=1  ") == {"at": 5, "level": "DEBUG", "part": "io", "fields": {"x": 1}}
    assert read("") is None
    assert read("-5 INFO io") is None
    assert read("5 info io") is None


def test_at_least():
    records = [{"level": level, "n": n} for n, level in enumerate(("DEBUG", "INFO", "WARN", "ERROR"))]
    assert at_least(records, "DEBUG") == records
    assert at_least(records, "ERROR") == records[3:]
    assert at_least(records, "INFO") == records[1:]
