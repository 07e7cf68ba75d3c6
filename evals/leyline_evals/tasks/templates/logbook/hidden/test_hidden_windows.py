from logbook.windows import buckets, longest_run, moving


def test_buckets():
    assert buckets([(0, 5)], 10) == [5]
    assert buckets([(9, 1), (10, 1), (39, 3)], 10) == [1, 1, 0, 3]
    assert buckets([(100, 2), (100, 3)], 7) == [5]


def test_moving():
    assert moving([], 3) == []
    assert moving([1, 2, 3, 4], 3) == [1, 1.5, 2, 3]
    assert moving([8, 0, 4], 9) == [8, 4, 4]


def test_longest_run():
    assert longest_run([], 0) == 0
    assert longest_run([1, 1, 1], 0) == 3
    assert longest_run([5, 0, 5, 5, 5, 0, 5], 1) == 3
