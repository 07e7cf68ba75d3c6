from ledger.report import by_tag, largest, statement
from tests.scale import SIZE

LINES = [
    f"2024-02-{1 + n % 28:02d} | {'food' if n % 3 else 'home, fun'} | {n}.{n % 10}5 | bank to shop{n % 4}"
    for n in range(1, SIZE + 1)
]


def test_by_tag_shares_cents():
    entries = [{"tags": ["a", "b"], "cents": 101}, {"tags": [], "cents": 5}]
    assert by_tag(entries) == {"a": 51, "b": 50, "other": 5}


def test_largest_ranks():
    assert largest({"a": 5, "b": 9, "c": 9, "d": 1}, 3) == [("b", 9), ("c", 9), ("a", 5)]


def test_statement_of_a_month():
    written = statement(LINES, "2024-02-01", "2024-02-28")
    spent = sum(n * 100 + (n % 10) * 10 + 5 for n in range(1, SIZE + 1))
    assert written[0] == f"2024-02-01 to 2024-02-28: {SIZE} entries"
    assert written[1] == f"{'bank':<10}{f'-{spent // 100}.{spent % 100:02d}':>12}"
    assert written[-1] == "overdrawn: bank"


def test_statement_of_a_few_days():
    written = statement(
        [
            "2024-02-03 | b,a | 0.05 | x to y",
            "2024-02-01 | c | 9 | x to y",
            "2024-02-04 | d | 1 | y to x",
        ],
        "2024-02-02",
        "2024-02-04",
        {"y": 95},
    )
    assert written == [
        "2024-02-02 to 2024-02-04: 2 entries",
        "x                 0.95",
        "y                -0.95",
        "#d                1.00",
        "#a                0.03",
        "#b                0.02",
    ]
