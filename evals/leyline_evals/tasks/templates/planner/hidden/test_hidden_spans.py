from planner.spans import gaps, merged, overlap

SETS = [
    [(1, 4), (6, 8), (7, 12)],
    [(0, 2), (2, 5), (9, 10)],
    [(3, 9), (4, 5), (12, 15), (14, 18)],
    [],
]


def test_overlap():
    for one in ((0, 5), (2, 3), (4, 9)):
        for other in ((1, 4), (3, 8), (8, 9)):
            both = set(range(*one)) & set(range(*other))
            assert overlap(one, other) == len(both)


def test_merged():
    for spans in SETS:
        covered = {n for span in spans for n in range(*span)}
        result = merged(spans)
        assert {n for span in result for n in range(*span)} == covered
        assert all(one[1] < other[0] for one, other in zip(result, result[1:]))


def test_gaps():
    for spans in SETS:
        for start, end in ((0, 20), (2, 11), (5, 6)):
            busy = {n for span in spans for n in range(*span)}
            result = gaps(spans, start, end)
            assert {n for span in result for n in range(*span)} == set(range(start, end)) - busy
            assert all(one < other for one, other in result)
