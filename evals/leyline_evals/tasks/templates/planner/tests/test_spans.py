from planner.spans import gaps, merged, overlap


def test_overlap():
    assert overlap((0, 10), (5, 20)) == 5
    assert overlap((0, 10), (10, 20)) == 0
    assert overlap((0, 10), (30, 40)) == 0


def test_merged():
    assert merged([(5, 8), (0, 3), (8, 9), (2, 4)]) == [(0, 4), (5, 9)]
    assert merged([(0, 10), (2, 3)]) == [(0, 10)]


def test_gaps():
    assert gaps([(10, 20), (15, 30)], 0, 60) == [(0, 10), (30, 60)]
    assert gaps([(0, 20)], 10, 40) == [(20, 40)]
    assert gaps([], 3, 7) == [(3, 7)]
