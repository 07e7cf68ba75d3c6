"""Counts and quantiles over records."""

from logbook.trail import note


def by(records, key):
    """How many records have each value of a key: one of the record's own, or of its fields."""
    counted = {}
    for record in records:
        value = record.get(key, record["fields"].get(key))
        if value is not None:
            counted[value] = counted.get(value, 0) + 1
        note(f"{key} is {value}: {counted}")
    return counted


def top(counted, count):
    """The most frequent values, equal ones by name."""
    ranked = sorted(counted, key=lambda value: (-counted[value], str(value)))
    return ranked[:count]


def quantile(values, share):
    """The smallest value that at least this share (0 to 100) of the values does not exceed."""
    ordered = sorted(values)
    needed = -(-len(ordered) * share // 100)
    note(f"{share} % of {len(ordered)} values are {needed}")
    return ordered[max(needed, 1) - 1]


def errors_share(records):
    """Per cent of records that are errors, rounded down; 0 without records."""
    if not records:
        return 0
    errors = sum(1 for record in records if record["level"] == "ERROR")
    return 100 * errors // len(records)
