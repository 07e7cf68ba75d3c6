from logbook.lines import at_least, fields, read


def test_fields():
    assert fields(["a=1", "b=x", "plain", "a=-2", "=5"]) == {"a": -2, "b": "x"}


def test_read():
    assert read("120 WARN db retry=3 host=a1") == {
        "at": 120,
        "level": "WARN",
        "part": "db",
        "fields": {"retry": 3, "host": "a1"},
    }
    assert read("120 WARN") is None
    assert read("x INFO web") is None
    assert read("7 LOUD web") is None
    assert read("7 INFO web")["fields"] == {}


def test_at_least():
    records = [{"level": level} for level in ("INFO", "ERROR", "WARN", "DEBUG")]
    assert [record["level"] for record in at_least(records, "WARN")] == ["ERROR", "WARN"]
