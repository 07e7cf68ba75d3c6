from ledger.money import parse, show, split


def test_parse_reads_amounts():
    assert parse("12.34") == 1234
    assert parse("-3.5") == -350
    assert parse("1,200") == 120000


def test_show_writes_amounts():
    assert show(-350) == "-3.50"
    assert show(120005) == "1200.05"
    assert show(0) == "0.00"


def test_split_shares_everything():
    assert split(100, 3) == [34, 33, 33]
    assert split(10, 2) == [5, 5]
    assert split(11, 4) == [3, 3, 3, 2]
