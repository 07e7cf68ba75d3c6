"""Groups of rows, and what is computed over them."""

from sheets.trail import note


def grouped(rows, column):
    """Lists of rows by their value in a column, in the order in which the values first come."""
    groups = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def mean(numbers):
    """The mean; None of nothing. Values that are None do not count."""
    given = [number for number in numbers if number is not None]
    if not given:
        return None
    note(f"mean of {given}")
    return sum(given) / len(given)


def median(numbers):
    """The middle value, or the mean of the two middle ones; None of nothing."""
    given = sorted(number for number in numbers if number is not None)
    if not given:
        return None
    middle = len(given) // 2
    if len(given) % 2 == 1:
        return given[middle]
    return (given[middle - 1] + given[middle]) / 2


def pivot(rows, down, across, column):
    """Sums of a column by two others: {down: {across: sum}}; None counts as 0."""
    sums = {}
    for row in rows:
        line = sums.setdefault(row[down], {})
        line[row[across]] = line.get(row[across], 0) + (row[column] or 0)
        note(f"{row[down]} / {row[across]}: {line}")
    return sums
