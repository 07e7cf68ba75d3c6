"""Tables made of others, and written."""

from sheets.cells import shown
from sheets.groups import grouped, mean, median
from sheets.rows import ordered, read
from sheets.trail import note


def joined(left, right, column):
    """Each left row with what the first fitting right row adds; the left one's values win."""
    found = grouped(right, column)
    rows = []
    for row in left:
        others = found.get(row[column])
        extra = others[0] if others else {}
        rows.append({**extra, **row})
        note(f"{row[column]}: {'joined' if others else 'alone'}")
    return rows


def summary(rows, column, number):
    """For each value of a column: how many rows, and mean and median of a number; by mean."""
    lines = []
    for name, group in grouped(rows, column).items():
        numbers = [row.get(number) for row in group]
        lines.append(
            {column: name, "count": len(group), "mean": mean(numbers), "median": median(numbers)}
        )
        note(f"summary {lines[-1]}")
    return ordered(lines, "mean", falling=True)


def written(rows, sign=" "):
    """Rows as lines of text with columns of equal width, the names first."""
    if not rows:
        return []
    names = list(rows[0])
    widths = {
        name: max(len(name), max(len(shown(row[name])) for row in rows)) for name in names
    }
    lines = [sign.join(name.ljust(widths[name]) for name in names).rstrip()]
    for row in rows:
        lines.append(sign.join(shown(row[name], widths[name]) for name in names).rstrip())
    return lines


def report(people, visits, by):
    """What people's visits cost, by one of the people's columns, as lines."""
    rows = joined(read(visits), read(people), "name")
    return written(summary(rows, by, "cost"))
