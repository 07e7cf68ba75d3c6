"""How long a way takes, in minutes."""

from routes.trail import note


def drive(km, speed=60):
    """Minutes for a distance at a speed in kilometres an hour, rounded up."""
    return -(-km * 60 // speed)


def with_breaks(minutes, every=120, pause=15):
    """Minutes with a pause after each full stretch of driving, none at the very end."""
    if minutes <= 0:
        return 0
    pauses = (minutes - 1) // every
    note(f"{minutes} minutes need {pauses} pauses")
    return minutes + pauses * pause


def arrivals(legs, start, stop=10):
    """When each leg's town is reached; at each, one stops before going on."""
    reached = []
    at = start
    for minutes in legs:
        at += minutes
        reached.append(at)
        at += stop
        note(f"leg of {minutes}: there at {reached[-1]}, on at {at}")
    return reached


def late(reached, promised):
    """The places in the list that are reached later than promised, and by how much."""
    found = {}
    for index, (at, until) in enumerate(zip(reached, promised)):
        if at > until:
            found[index] = at - until
    return found
