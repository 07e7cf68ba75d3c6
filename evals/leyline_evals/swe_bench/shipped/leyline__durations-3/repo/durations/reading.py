"""Text to seconds."""

import re

from durations.units import UNITS

_PART = re.compile(r"(-?\d+)([dhms])")


def parse_duration(text):
    """The seconds that a text like `1h30m` says.

    Raises ValueError for what is no duration, or has a unit twice or in the wrong order.
    """
    seconds, place, left = 0, 0, list(UNITS)
    while place < len(text):
        part = _PART.match(text, place)
        if part is None or part[2] not in left:
            raise ValueError(f"{text!r} is no duration; write 1h30m, 45s or 2d")
        left = left[left.index(part[2]) + 1 :]
        seconds += int(part[1]) * UNITS[part[2]]
        place = part.end()
    if not text:
        raise ValueError("an empty text is no duration; write 0s")
    return seconds
