"""Sums by category, and the table that shows them."""

from tally import money, periods


def totals(entries, period=None):
    """Cents by category of the entries in a period, largest first."""
    sums = {}
    for entry in entries:
        if period is not None and not periods.within(entry.day, period):
            continue
        sums[entry.category] = sums.get(entry.category, 0) + entry.cents
    return dict(sorted(sums.items(), key=lambda item: item[1]))


def table(sums):
    """One line a category, amounts aligned on the right, and the sum of all."""
    rows = [(name, money.show(cents)) for name, cents in sums.items()]
    rows.append(("total", money.show(sum(sums.values()))))
    left = max(len(name) for name, _ in rows)
    right = max(len(amount) for _, amount in rows)
    return "\n".join(f"{name:{left}}  {amount:>{right}}" for name, amount in rows)
