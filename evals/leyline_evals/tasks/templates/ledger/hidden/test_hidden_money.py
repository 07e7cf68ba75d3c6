from ledger.money import parse, show, split


def test_parse():
    expected = {"0": 0, ".5": 50, "7": 700, "-0.05": -5, " 3.999 ": 399, "-1,000.10": -100010}
    assert {text: parse(text) for text in expected} == expected


def test_show():
    for cents, text in ((1, "0.01"), (-1, "-0.01"), (99, "0.99"), (100, "1.00"), (-12345, "-123.45")):
        assert show(cents) == text


def test_split():
    for cents in range(0, 40):
        for parts in range(1, 7):
            shares = split(cents, parts)
            assert sum(shares) == cents
            assert len(shares) == parts
            assert shares == sorted(shares, reverse=True)
            assert shares[0] - shares[-1] <= 1
