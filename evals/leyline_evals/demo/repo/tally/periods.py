"""Months as half-open ranges of days."""

import datetime
import re

_MONTH = re.compile(r"(\d{4})-(\d{2})")


class BadMonth(ValueError):
    """A text that is no month."""


def month(year, number):
    """First day of a month, and the first day after it."""
    start = datetime.date(year, number, 1)
    end = datetime.date(year, number + 1, 1)
    return start, end


def parse(text):
    """The range of a month written '2023-12'."""
    match = _MONTH.fullmatch(text)
    if match is None:
        raise BadMonth(f"not a month: {text!r}, write it like 2023-12")
    year, number = map(int, match.groups())
    try:
        return month(year, number)
    except ValueError as error:
        raise BadMonth(f"no such month: {text!r}") from error


def within(day, period):
    """Whether a day lies in a half-open period."""
    start, end = period
    return start <= day < end
