"""Amounts of money, kept as whole cents."""

from ledger.trail import note


def parse(text):
    """Cents from "12.34", "-3.5", "1,200" or "7"."""
    cleaned = text.strip().replace(",", "")
    negative = cleaned.startswith("-")
    if negative:
        cleaned = cleaned[1:]
    whole, _, fraction = cleaned.partition(".")
    fraction = (fraction + "00")[:2]
    cents = int(whole or "0") * 100 + int(fraction)
    note(f"parse {text!r}: whole {whole!r}, fraction {fraction!r}, {cents} cents")
    if negative:
        return -cents
    return cents


def show(cents):
    """Cents as text with two decimals: -350 is "-3.50"."""
    sign = "-" if cents < 0 else ""
    whole, fraction = divmod(abs(cents), 100)
    return f"{sign}{whole}.{fraction:02d}"


def split(cents, parts):
    """Shares that differ by one cent at most, the larger ones first."""
    share, left = divmod(cents, parts)
    shares = []
    for index in range(parts):
        extra = 1 if index < left else 0
        shares.append(share + extra)
    note(f"split {cents} into {parts}: {shares}")
    return shares
