"""Entries: lines of text such as "2024-03-05 | food,home | 12.50 | rent to bank"."""

from ledger.money import parse
from ledger.trail import note


def read(line):
    """One entry as a dict; None for blank lines and comments."""
    line = line.strip()
    if not line or line.startswith("#"):
        note(f"skip {line!r}")
        return None
    day, tags, amount, text = [part.strip() for part in line.split("|", 3)]
    source, _, target = text.partition(" to ")
    entry = {
        "day": day,
        "tags": sorted({tag.strip().lower() for tag in tags.split(",") if tag.strip()}),
        "cents": parse(amount),
        "source": source.strip(),
        "target": target.strip() or "unknown",
    }
    note(f"entry {entry}")
    return entry


def read_all(lines):
    """The entries of many lines, oldest first; equal days stay in their order."""
    entries = []
    for line in lines:
        entry = read(line)
        if entry is not None:
            entries.append(entry)
    return sorted(entries, key=lambda entry: entry["day"])


def between(entries, first, last):
    """The entries from the first day to the last, both included."""
    chosen = [entry for entry in entries if first <= entry["day"] and entry["day"] <= last]
    note(f"{len(chosen)} of {len(entries)} entries from {first} to {last}")
    return chosen
