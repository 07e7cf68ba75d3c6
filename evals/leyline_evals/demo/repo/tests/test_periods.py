import datetime
import unittest

from tally import periods


class Month(unittest.TestCase):
    def test_june(self):
        start, end = periods.parse("2023-06")
        self.assertEqual((end - start).days, 30)

    def test_december_ends_with_the_year(self):
        period = periods.parse("2023-12")
        self.assertTrue(periods.within(datetime.date(2023, 12, 31), period))
        self.assertFalse(periods.within(datetime.date(2024, 1, 1), period))

    def test_a_thirteenth_month_is_refused(self):
        with self.assertRaises(periods.BadMonth):
            periods.parse("2023-13")
