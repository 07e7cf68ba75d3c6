import datetime
import unittest

from tally import report
from tally.entries import parse_line

LINES = [
    "2023-12-01 food 8.20 bakery",
    "2023-12-09 books 31.00 atlas",
    "2023-12-12 books -0.50 voucher",
    "2024-01-02 travel -7.00 refund",
]


class Totals(unittest.TestCase):
    def setUp(self):
        self.entries = [parse_line(line) for line in LINES]

    def test_refunds_are_subtracted(self):
        self.assertEqual(report.totals(self.entries)["books"], 3050)

    def test_largest_comes_first(self):
        self.assertEqual(list(report.totals(self.entries)), ["books", "food", "travel"])

    def test_only_the_period_counts(self):
        period = datetime.date(2024, 1, 1), datetime.date(2024, 2, 1)
        self.assertEqual(report.totals(self.entries, period), {"travel": -700})
