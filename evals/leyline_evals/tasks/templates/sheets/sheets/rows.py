"""Rows: lists of dicts with the same keys."""

from sheets.cells import value
from sheets.trail import note


def read(text, sign=","):
    """Rows from text whose first line names the columns; short lines are filled with None."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return []
    names = [name.strip() for name in lines[0].split(sign)]
    rows = []
    for line in lines[1:]:
        cells = [value(cell) for cell in line.split(sign)]
        cells += [None] * (len(names) - len(cells))
        rows.append(dict(zip(names, cells)))
        note(f"row {rows[-1]}")
    return rows


def where(rows, column, least=None, most=None):
    """The rows whose number in a column is not below the least and not above the most."""
    chosen = []
    for row in rows:
        number = row[column]
        if number is None:
            continue
        if least is not None and number < least:
            continue
        if most is not None and number > most:
            continue
        chosen.append(row)
    note(f"{len(chosen)} of {len(rows)} rows have {column} in {least}..{most}")
    return chosen


def ordered(rows, column, falling=False):
    """Rows by a column, those without a value last; equal ones stay in their order."""
    given = [row for row in rows if row[column] is not None]
    empty = [row for row in rows if row[column] is None]
    return sorted(given, key=lambda row: row[column], reverse=falling) + empty
