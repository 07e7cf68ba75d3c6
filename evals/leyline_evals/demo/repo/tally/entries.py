"""Lines of a ledger."""

import datetime
from dataclasses import dataclass

from tally import money


@dataclass(frozen=True)
class Entry:
    """One line: a day, a category, an amount in cents, a note."""

    day: datetime.date
    category: str
    cents: int
    note: str = ""


def parse_line(line):
    """The entry of one line; fields are separated by blanks, the note may hold some."""
    day, category, amount, *note = line.split()
    return Entry(datetime.date.fromisoformat(day), category, money.parse(amount), " ".join(note))


def read(path):
    """The entries of a file; blank lines are skipped."""
    with open(path) as file:
        return [parse_line(line) for line in file if line.strip()]
