"""python -m tally LEDGER [MONTH]"""

import sys

from tally import entries, periods, report


def main(arguments):
    """Print the table of a ledger, of one month if one is named."""
    ledger, *rest = arguments
    period = periods.parse(rest[0]) if rest else None
    print(report.table(report.totals(entries.read(ledger), period)))


if __name__ == "__main__":
    main(sys.argv[1:])
