from logbook.windows import buckets, longest_run, moving


def test_buckets():
    assert buckets([(61, 1), (119, 2), (125, 4), (300, 1)], 60) == [3, 4, 0, 0, 1]
    assert buckets([], 60) == []


def test_moving():
    assert moving([2, 4, 9], 2) == [2, 3, 6.5]
    assert moving([3, 3], 1) == [3, 3]


def test_longest_run():
    assert longest_run([1, 5, 6, 1, 7], 4) == 2
    assert longest_run([4, 4], 4) == 0
