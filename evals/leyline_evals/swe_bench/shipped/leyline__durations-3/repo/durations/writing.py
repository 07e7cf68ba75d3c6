"""Seconds to text."""

from durations.units import UNITS


def format_duration(seconds):
    """A duration as `parse_duration` reads it, with no unit that is zero; 0 is `0s`."""
    parts, left = [], seconds
    for unit, size in UNITS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
