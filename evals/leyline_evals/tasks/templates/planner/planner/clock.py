"""Times of a day as minutes since midnight."""

from planner.trail import note


def minutes(text):
    """Minutes from "9:30", "14:05" or "2pm"."""
    text = text.strip().lower()
    afternoon = text.endswith("pm")
    if afternoon or text.endswith("am"):
        text = text[:-2]
    hours, _, rest = text.partition(":")
    hour = int(hours) % 12 + 12 if afternoon else int(hours)
    total = hour * 60 + int(rest or "0")
    note(f"{text!r} is {total} minutes")
    return total


def clock(total):
    """Minutes as "09:30"; whole days are left out."""
    hours, rest = divmod(total % 1440, 60)
    return f"{hours:02d}:{rest:02d}"


def rounded(total, step, up=False):
    """Minutes rounded down to a multiple of a step, or up."""
    down = total // step * step
    if up and down < total:
        return down + step
    return down
