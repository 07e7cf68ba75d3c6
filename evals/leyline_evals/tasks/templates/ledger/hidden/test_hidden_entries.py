from ledger.entries import between, read, read_all


def test_read():
    entry = read("  2023-12-31 | b , A,b ,, | -4.2 | my bank to the shop to home ")
    assert entry["day"] == "2023-12-31"
    assert entry["tags"] == ["a", "b"]
    assert entry["cents"] == -420
    assert entry["source"] == "my bank"
    assert entry["target"] == "the shop to home"
    assert read("#2023-12-31 | a | 1 | x to y") is None


def test_read_all_is_stable():
    lines = [f"2023-01-{day:02d} | t | {n} | a to b" for n, day in enumerate((5, 3, 5, 1, 3))]
    assert [entry["cents"] for entry in read_all(lines)] == [300, 100, 400, 0, 200]


def test_between():
    entries = [{"day": f"2023-01-{day:02d}"} for day in range(1, 11)]
    assert len(between(entries, "2023-01-03", "2023-01-07")) == 5
    assert len(between(entries, "2023-01-10", "2023-01-10")) == 1
    assert between(entries, "2023-01-11", "2023-01-12") == []
