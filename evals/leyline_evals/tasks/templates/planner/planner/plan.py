"""Plans: requests such as "team 4 90 9:00-12:00 screen" are given rooms and times."""

from planner.clock import clock, minutes, rounded
from planner.rooms import suiting
from planner.trail import note

STEP = 15


def request(line):
    """A request as a dict: name, people, length, earliest, latest end, needs."""
    name, people, length, window, *needs = line.split()
    first, _, last = window.partition("-")
    asked = {
        "name": name,
        "people": int(people),
        "length": int(length),
        "window": (minutes(first), minutes(last)),
        "needs": needs,
    }
    note(f"request {asked}")
    return asked


def place(rooms, bookings, asked):
    """The first start in steps of a quarter at which a room is free; None when there is none."""
    first, last = asked["window"]
    for start in range(rounded(first, STEP, up=True), last - asked["length"] + 1, STEP):
        span = (start, start + asked["length"])
        names = suiting(rooms, bookings, asked["people"], span, asked["needs"])
        note(f"{asked['name']} at {clock(start)}: {names}")
        if names:
            return {"room": names[0], "span": span, "name": asked["name"]}
    return None


def plan(rooms, lines):
    """Bookings for all requests that can be placed, the longest first, and who is left out."""
    wanted = sorted((request(line) for line in lines), key=lambda asked: (-asked["length"], asked["name"]))
    bookings = []
    left = []
    for asked in wanted:
        booking = place(rooms, bookings, asked)
        if booking is None:
            left.append(asked["name"])
        else:
            bookings.append(booking)
    return bookings, sorted(left)


def table(bookings):
    """Lines of a timetable, by time and room."""
    ordered = sorted(bookings, key=lambda booking: (booking["span"], booking["room"]))
    return [
        f"{clock(booking['span'][0])}-{clock(booking['span'][1])} {booking['room']} {booking['name']}"
        for booking in ordered
    ]
