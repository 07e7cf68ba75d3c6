"""Roads: {town: {neighbour: kilometres}}."""

from routes.trail import note


def read(text):
    """Roads from lines "a - b 12" (both ways) and "a > b 12" (one way)."""
    roads = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 4 or words[1] not in "->":
            note(f"no road: {line!r}")
            continue
        one, way, other, length = words
        roads.setdefault(one, {})[other] = int(length)
        roads.setdefault(other, {})
        if way == "-":
            roads[other][one] = int(length)
        note(f"road {one} {way} {other}: {length} km")
    return roads


def without(roads, closed):
    """Roads without those that touch a closed town; `roads` is not changed."""
    left = {}
    for town, ways in roads.items():
        if town not in closed:
            left[town] = {other: km for other, km in ways.items() if other not in closed}
    return left


def total(roads):
    """Kilometres of all roads; one that leads both ways counts once."""
    length = 0
    for town, ways in roads.items():
        for other, km in ways.items():
            back = roads.get(other, {}).get(town)
            if back != km or town < other:
                length += km
    return length
