"""Money as whole cents, so that sums are exact."""

import re

_AMOUNT = re.compile(r"(-?\d+)(?:\.(\d{1,2}))?")


class BadAmount(ValueError):
    """A text that is no amount."""


def parse(text):
    """Cents of an amount like '12', '12.5' or '-3.25'."""
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise BadAmount(f"not an amount: {text!r}")
    whole, fraction = match.groups()
    cents = int((fraction or "0").ljust(2, "0"))
    units = int(whole)
    return units * 100 - cents if units < 0 else units * 100 + cents


def show(cents):
    """An amount for people, '-0.50' for -50."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"
