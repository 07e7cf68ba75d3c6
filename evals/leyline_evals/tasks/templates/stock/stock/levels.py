"""How much of each article lies where."""

from stock.trail import note


def receive(levels, article, count):
    """New levels with `count` more of an article; `levels` is not changed."""
    after = dict(levels)
    after[article] = after.get(article, 0) + count
    note(f"receive {count} of {article}: {after}")
    return after


def take(levels, article, count):
    """Levels after taking, and how many could be taken; articles at zero are dropped."""
    after = dict(levels)
    there = after.get(article, 0)
    taken = min(there, count)
    if there - taken > 0:
        after[article] = there - taken
    else:
        after.pop(article, None)
    note(f"take {count} of {article}: {taken} of {there}")
    return after, taken


def low(levels, minimum):
    """Articles with fewer than their minimum, the emptiest (by share) first."""
    found = []
    for article in sorted(minimum):
        there = levels.get(article, 0)
        if there < minimum[article]:
            found.append((there / minimum[article], article))
    note(f"low: {found}")
    return [article for _, article in sorted(found)]
