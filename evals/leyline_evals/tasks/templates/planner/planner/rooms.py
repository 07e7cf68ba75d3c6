"""Rooms, what they hold, and which of them suits a meeting."""

from planner.spans import gaps, overlap
from planner.trail import note


def free(bookings, room, span):
    """Whether a room is not booked during a span."""
    for booking in bookings:
        if booking["room"] == room and overlap(booking["span"], span) > 0:
            note(f"{room} is taken by {booking}")
            return False
    return True


def suiting(rooms, bookings, people, span, needs=()):
    """Names of free rooms with enough seats and all that is needed, the smallest first."""
    found = []
    for name, room in rooms.items():
        enough = room["seats"] >= people
        equipped = all(need in room["has"] for need in needs)
        if enough and equipped and free(bookings, name, span):
            found.append((room["seats"], name))
        note(f"{name}: enough {enough}, equipped {equipped}")
    return [name for _, name in sorted(found)]


def longest_gap(bookings, room, start, end):
    """The longest free span of a room; of equal ones the first; None when there is none."""
    busy = [booking["span"] for booking in bookings if booking["room"] == room]
    best = None
    for span in gaps(busy, start, end):
        if best is None or span[1] - span[0] > best[1] - best[0]:
            best = span
    note(f"longest gap of {room}: {best}")
    return best
