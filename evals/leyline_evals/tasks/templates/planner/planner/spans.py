"""Spans of time: pairs of minutes, the second not included."""

from planner.trail import note


def overlap(one, other):
    """The minutes that two spans share."""
    start = max(one[0], other[0])
    end = min(one[1], other[1])
    return max(0, end - start)


def merged(spans):
    """Spans in order, those that touch or overlap made one."""
    result = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], end))
        else:
            result.append((start, end))
        note(f"merge {start}-{end}: {result}")
    return result


def gaps(spans, start, end):
    """What the spans leave free between a start and an end."""
    free = []
    at = start
    for first, last in merged(spans):
        if first > at:
            free.append((at, min(first, end)))
        at = max(at, last)
        note(f"busy {first}-{last}: free {free}, at {at}")
    if at < end:
        free.append((at, end))
    return [span for span in free if span[0] < span[1]]
