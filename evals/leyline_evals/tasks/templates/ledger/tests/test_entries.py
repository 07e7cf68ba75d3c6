from ledger.entries import between, read, read_all

LINES = [
    "# a comment",
    "2024-03-05 | food, Home | 12.50 | bank to shop",
    "",
    "2024-03-01 | rent | 700 | bank to landlord",
    "2024-03-05 | | 3 | cash",
]


def test_read_takes_a_line_apart():
    assert read(LINES[1]) == {
        "day": "2024-03-05",
        "tags": ["food", "home"],
        "cents": 1250,
        "source": "bank",
        "target": "shop",
    }
    assert read("# note") is None
    assert read("   ") is None


def test_read_all_sorts_by_day():
    entries = read_all(LINES)
    assert [entry["cents"] for entry in entries] == [70000, 1250, 300]
    assert entries[2]["target"] == "unknown"


def test_between_includes_both_days():
    entries = read_all(LINES)
    assert len(between(entries, "2024-03-01", "2024-03-05")) == 3
    assert len(between(entries, "2024-03-02", "2024-03-05")) == 2
    assert len(between(entries, "2024-03-01", "2024-03-04")) == 1
