from logbook.alerts import digest, slow, storms
from tests.scale import SIZE


def record(at, level, part, **fields):
    return {"at": at, "level": level, "part": part, "fields": fields}


def test_slow():
    records = [record(n, "INFO", "web" if n % 2 else "db", ms=10 * n) for n in range(1, 21)]
    assert slow(records, 170) == ["db"]
    assert slow(records, 169) == ["db", "web"]


def test_storms():
    records = [record(10 * n, "WARN" if n > 9 else "INFO", "web") for n in range(30)]
    assert storms(records, 60, 4) == 2


def test_digest_of_a_short_log():
    log = "\n".join(
        ["20 INFO web ms=80", "noise", "10 ERROR db ms=200", "70 WARN web ms=90", "80 WARN cache"]
    )
    assert digest(log) == {
        "records": 4,
        "errors": 25,
        "noisy": ["cache", "db"],
        "slow": ["db"],
        "storm": 1,
    }


def test_digest_of_a_long_log():
    parts = ["api", "db", "web"]
    log = "\n".join(
        f"{20 * n} {'ERROR' if n % 4 == 0 else 'INFO'} {parts[n % 3]} ms={50 + n % 3 * 60}"
        for n in range(4 * SIZE)
    )
    assert digest(log) == {
        "records": 4 * SIZE,
        "errors": 25,
        "noisy": ["api", "db"],
        "slow": ["db", "web"],
        "storm": 0,
    }
