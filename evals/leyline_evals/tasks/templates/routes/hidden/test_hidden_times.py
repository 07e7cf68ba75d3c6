from routes.times import arrivals, drive, late, with_breaks


def test_drive():
    assert [drive(km, 50) for km in (1, 5, 50, 51)] == [2, 6, 60, 62]
    assert drive(61) == 61


def test_with_breaks():
    assert [with_breaks(n) for n in (1, 119, 240, 241, 361)] == [1, 119, 255, 271, 406]
    assert with_breaks(-5) == 0


def test_arrivals():
    assert arrivals([1, 1], 0, 0) == [1, 2]
    assert arrivals([10, 20], 50, 5) == [60, 85]


def test_late():
    assert late([], []) == {}
    assert late([5, 6], [4, 6]) == {0: 1}
    assert late([9, 9, 9], [1, 10, 8]) == {0: 8, 2: 1}
