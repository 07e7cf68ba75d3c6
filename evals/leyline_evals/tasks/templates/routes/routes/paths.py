"""Shortest ways."""

from routes.trail import note


def distances(roads, start):
    """Kilometres from a town to each that can be reached."""
    known = {start: 0}
    for _ in range(len(roads)):
        changed = False
        for town in sorted(roads):
            if town not in known:
                continue
            for other, km in roads[town].items():
                far = known[town] + km
                if other not in known or far < known[other]:
                    known[other] = far
                    changed = True
                    note(f"{other} over {town}: {far} km")
        if not changed:
            break
    return known


def path(roads, start, end):
    """The towns of a shortest way, both ends included; [] when there is none."""
    known = distances(roads, start)
    if end not in known:
        return []
    way = [end]
    for _ in range(len(known)):
        if way[0] == start:
            break
        for town in sorted(known):
            if roads[town].get(way[0]) == known[way[0]] - known[town] and town not in way:
                way.insert(0, town)
                break
        note(f"way so far: {way}")
    return way


def reachable(roads, start, limit):
    """The towns within a distance, nearest first, the start left out."""
    known = distances(roads, start)
    near = [town for town in known if town != start and known[town] <= limit]
    return sorted(near, key=lambda town: (known[town], town))
