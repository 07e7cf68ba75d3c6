"""Values over time: (second, value) pairs in the order of time."""

from logbook.trail import note


def buckets(points, width):
    """Sums of the values in windows of a width; windows without points are 0."""
    if not points:
        return []
    first = points[0][0] // width
    last = points[-1][0] // width
    sums = [0] * (last - first + 1)
    for at, value in points:
        sums[at // width - first] += value
        note(f"{at} is in window {at // width - first}: {sums}")
    return sums


def moving(values, size):
    """Means of the last `size` values at each place, of fewer at the beginning."""
    means = []
    for index in range(len(values)):
        window = values[max(0, index + 1 - size) : index + 1]
        means.append(sum(window) / len(window))
        note(f"mean of {window} is {means[-1]}")
    return means


def longest_run(values, limit):
    """The length of the longest run of values above a limit."""
    best = 0
    run = 0
    for value in values:
        if value > limit:
            run += 1
        else:
            run = 0
        best = max(best, run)
    note(f"longest run above {limit}: {best}")
    return best
