"""Balances of accounts, from entries."""

from ledger.trail import note


def balances(entries, opening=None):
    """What each account holds after all entries; `opening` is not changed."""
    held = dict(opening or {})
    for entry in entries:
        cents = entry["cents"]
        held[entry["source"]] = held.get(entry["source"], 0) - cents
        held[entry["target"]] = held.get(entry["target"], 0) + cents
        note(f"move {cents} from {entry['source']} to {entry['target']}: {held}")
    return held


def lowest(entries, account, opening=0):
    """The lowest balance an account ever had, the opening one included."""
    held = opening
    least = opening
    for entry in entries:
        if entry["source"] == account:
            held -= entry["cents"]
        if entry["target"] == account:
            held += entry["cents"]
        least = min(least, held)
        note(f"{account}: {held}, lowest {least}")
    return least


def overdrawn(held, limits):
    """Accounts below minus their limit, by name; an account without a limit has 0."""
    found = []
    for name in sorted(held):
        limit = limits.get(name, 0)
        if held[name] < -limit:
            found.append(name)
    note(f"overdrawn: {found}")
    return found
