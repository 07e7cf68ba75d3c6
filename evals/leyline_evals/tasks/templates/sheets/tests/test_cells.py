from sheets.cells import shown, value


def test_value():
    assert [value(text) for text in ("12", "-3", "2.5", "Yes", "off", " - ", "a1")] == [
        12,
        -3,
        2.5,
        True,
        False,
        None,
        "a1",
    ]


def test_value_keeps_other_text():
    assert value("1.2.3") == "1.2.3"
    assert value("1.") == "1."


def test_shown():
    assert shown(3, 4) == "   3"
    assert shown("a", 4) == "a   "
    assert shown(2.5) == "2.50"
    assert shown(True, 4) == "yes "
    assert shown(None) == "-"
