from routes.times import arrivals, drive, late, with_breaks


def test_drive():
    assert drive(60) == 60
    assert drive(10, 90) == 7
    assert drive(0) == 0


def test_with_breaks():
    assert with_breaks(120) == 120
    assert with_breaks(121) == 136
    assert with_breaks(300, 100, 5) == 310
    assert with_breaks(0) == 0


def test_arrivals():
    assert arrivals([30, 5, 60], 100) == [130, 145, 215]
    assert arrivals([], 7) == []


def test_late():
    assert late([10, 20, 30], [10, 15, 40]) == {1: 5}
