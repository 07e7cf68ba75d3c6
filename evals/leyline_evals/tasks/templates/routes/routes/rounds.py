"""Rounds of deliveries."""

from routes.paths import distances, path
from routes.roads import without
from routes.times import arrivals, drive, late, with_breaks
from routes.trail import note


def order(roads, depot, stops):
    """The stops in the order of always going to the nearest next; unreachable ones left out."""
    here = depot
    left = sorted(stops)
    ordered = []
    for _ in range(len(stops)):
        known = distances(roads, here)
        near = [stop for stop in left if stop in known]
        if not near:
            break
        here = min(near, key=lambda stop: (known[stop], stop))
        left.remove(here)
        ordered.append(here)
        note(f"next {here}, left {left}")
    return ordered


def legs(roads, depot, ordered):
    """Minutes of each leg of a round, breaks included."""
    found = []
    here = depot
    for stop in ordered:
        found.append(with_breaks(drive(distances(roads, here)[stop])))
        here = stop
    return found


def plan(roads, depot, promised, start=0, closed=()):
    """A round: its stops, the way through all towns, when each is reached, and who waits."""
    open_roads = without(roads, closed)
    ordered = order(open_roads, depot, [stop for stop in promised if stop not in closed])
    way = [depot]
    for stop in ordered:
        way.extend(path(open_roads, way[-1], stop)[1:])
    reached = arrivals(legs(open_roads, depot, ordered), start)
    waits = late(reached, [promised[stop] for stop in ordered])
    planned = {
        "stops": ordered,
        "way": way,
        "reached": reached,
        "late": {ordered[index]: by for index, by in waits.items()},
        "missed": sorted(set(promised) - set(ordered)),
    }
    note(f"plan {planned}")
    return planned
