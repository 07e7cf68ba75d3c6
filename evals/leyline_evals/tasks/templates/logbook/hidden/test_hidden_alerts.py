from logbook.alerts import digest, slow, storms


def record(at, level, part, **fields):
    return {"at": at, "level": level, "part": part, "fields": fields}


def test_slow():
    records = [record(1, "INFO", "a", ms=5), record(1, "INFO", "b"), record(2, "WARN", "c", ms=6)]
    assert slow(records, 5) == ["c"]
    assert slow(records, 4) == ["a", "c"]
    assert slow([], 4) == []


def test_storms():
    assert storms([], 60, 1) == 0
    calm = [record(n, "INFO", "a") for n in range(100)]
    assert storms(calm, 10, 0) == 0
    wild = calm[:20] + [record(20 + n, "ERROR", "a") for n in range(40)]
    assert storms(wild, 10, 3) == 4
    assert storms(wild, 10, 10) == 0


def test_digest():
    assert digest("") == {"records": 0, "errors": 0, "noisy": [], "slow": [], "storm": 0}
    log = "3 ERROR a ms=7\n2 ERROR a\n1 WARN b ms=101\n9 DEBUG c ms=500\nbad line here"
    assert digest(log) == {"records": 4, "errors": 50, "noisy": ["a", "b"], "slow": ["b", "c"], "storm": 1}
    assert digest(log, limit=500)["slow"] == []
