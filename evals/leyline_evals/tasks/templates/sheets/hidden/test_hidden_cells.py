from sheets.cells import shown, value


def test_value():
    expected = {"+7": 7, "-0.5": -0.5, "ON": True, "no ": False, "": None, "+": "+", "10.": "10.", ".5": ".5", "x.1": "x.1", "007": 7}
    assert {text: value(text) for text in expected} == expected
    assert value("7.0") == 7.0
    assert isinstance(value("7.0"), float)


def test_shown():
    assert shown(False, 5) == "no   "
    assert shown(1.005, 6) == "  1.00"
    assert shown(-12, 2) == "-12"
    assert shown(None, 3) == "-  "
    assert shown("abc", 2) == "abc"
