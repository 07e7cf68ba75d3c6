"""Reports over entries, as lines of text."""

from ledger.accounts import balances, overdrawn
from ledger.entries import between, read_all
from ledger.money import show, split
from ledger.trail import note


def by_tag(entries):
    """Cents spent on each tag; an entry with several tags is shared among them."""
    spent = {}
    for entry in entries:
        tags = entry["tags"] or ["other"]
        shares = split(entry["cents"], len(tags))
        for tag, share in zip(tags, shares):
            spent[tag] = spent.get(tag, 0) + share
        note(f"tags {tags} get {shares}")
    return spent


def largest(spent, count):
    """The tags with the largest sums, largest first; equal ones by name."""
    ranked = sorted(spent.items(), key=lambda item: (-item[1], item[0]))
    return ranked[:count]


def statement(lines, first, last, limits=None):
    """A statement: balances, then the three largest tags, then who is overdrawn."""
    entries = between(read_all(lines), first, last)
    held = balances(entries)
    written = [f"{first} to {last}: {len(entries)} entries"]
    for name in sorted(held):
        written.append(f"{name:<10}{show(held[name]):>12}")
    for tag, cents in largest(by_tag(entries), 3):
        written.append(f"#{tag:<9}{show(cents):>12}")
    late = overdrawn(held, limits or {})
    if late:
        written.append("overdrawn: " + ", ".join(late))
    note("\n".join(written))
    return written
