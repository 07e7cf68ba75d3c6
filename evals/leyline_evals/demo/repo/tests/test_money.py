import unittest

from tally import money


class Parse(unittest.TestCase):
    def test_whole_and_fraction(self):
        self.assertEqual(money.parse("12"), 1200)
        self.assertEqual(money.parse("12.5"), 1250)
        self.assertEqual(money.parse("-3.25"), -325)

    def test_small_refunds_stay_negative(self):
        self.assertEqual(money.parse("-0.50"), -50)
        self.assertEqual(money.parse("-0.05"), -5)

    def test_zero_has_no_sign(self):
        self.assertEqual(money.show(money.parse("-0.00")), "0.00")

    def test_rubbish_is_refused(self):
        for text in ("", "-", "1,50", "1.234", "ten"):
            with self.subTest(text), self.assertRaises(money.BadAmount):
                money.parse(text)
