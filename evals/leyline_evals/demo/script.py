"""What the scripted agent says and does: a plausible run with the usual detours.

It tries paths that are not there, edits with a text that does not match, mends one bug wrongly
first, reads files again after editing them, and runs the tests over and over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["SCRIPT", "SYSTEM", "TASK", "Step"]

SYSTEM = (
    "You are a careful software engineer working in /repo with two tools: bash runs a command, "
    "str_replace_editor views and edits files. Take one small step at a time, look at what a tool "
    "answers before the next step, and run the tests before you say that you are done."
)

TASK = (
    "The report for December cannot be printed: `python -m tally sample.ledger 2023-12` fails. "
    "A colleague adds that refunds of less than 1.00 are counted as spending, and that the table "
    "should begin with the largest sum. Please mend all of it; do not change the tests."
)

Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """One assistant turn: what it says and the calls it makes (none: it has finished)."""

    says: str
    calls: tuple[Call, ...] = ()


def _bash(says: str, command: str) -> Step:
    return Step(says, (("bash", {"command": command}),))


def _look(path: str, first: int = 0, last: int = 0) -> Call:
    arguments: dict[str, Any] = {"command": "view", "path": f"/repo/{path}"}
    if last:
        arguments["view_range"] = [first, last]
    return ("str_replace_editor", arguments)


def _view(says: str, path: str, first: int = 0, last: int = 0) -> Step:
    return Step(says, (_look(path, first, last),))


def _edit(says: str, path: str, old: str, new: str) -> Step:
    arguments = {
        "command": "str_replace",
        "path": f"/repo/{path}",
        "old_str": old,
        "new_str": new,
    }
    return Step(says, (("str_replace_editor", arguments),))


_ALL_TESTS = "python -m unittest -q"

SCRIPT: tuple[Step, ...] = (
    _bash("I start with what is there.", "ls && ls tally tests"),
    Step(
        "The report is where the table comes from, the months have a file of their own.",
        (_look("tally/report.py"), _look("tally/month.py")),
    ),
    _view("It is called periods.py.", "tally/periods.py"),
    _bash("Let me see what fails.", _ALL_TESTS),
    _view("What exactly do the tests ask of a month?", "tests/test_period.py"),
    _view("The name is in the plural.", "tests/test_periods.py"),
    _edit(
        "December plus one is month 13. The year has to turn.",
        "tally/periods.py",
        "    end = datetime.date(year, number+1, 1)\n",
        "    end = datetime.date(year + number // 12, number + 1, 1)\n",
    ),
    _view("The text did not match; I look at the lines again.", "tally/periods.py", 13, 18),
    _edit(
        "There are blanks around the plus.",
        "tally/periods.py",
        "    end = datetime.date(year, number + 1, 1)\n",
        "    end = datetime.date(year + number // 12, number + 1, 1)\n",
    ),
    _bash("Does December work?", "python -m unittest -q tests.test_periods"),
    _edit(
        "I let the year turn but not the month.",
        "tally/periods.py",
        "number + 1, 1)",
        "number % 12 + 1, 1)",
    ),
    _bash("Once more.", "python -m unittest -q tests.test_periods"),
    _view("Months are right. A last look at the whole file.", "tally/periods.py"),
    _view("Now the refunds: how is an amount read?", "tally/money.py"),
    _bash("And what is expected?", "grep -n -A1 refund tests/*.py"),
    _edit(
        "int('-0') has lost its sign, so the fraction is added. I ask the text instead.",
        "tally/money.py",
        "units < 0",
        'whole == "-0"',
    ),
    _bash("Is that enough?", "python -m unittest -q tests.test_money"),
    _view("No: now -3.25 is wrong. Let me think with the code before me.", "tally/money.py"),
    _edit(
        "The sign belongs to the text, whatever the digits are.",
        "tally/money.py",
        'whole == "-0"',
        'whole.startswith("-")',
    ),
    _bash("Now both.", "python -m unittest -q tests.test_money"),
    _bash("And all together.", _ALL_TESTS),
    _view("Only the order is left.", "tests/test_report.py"),
    _view("The sorting is in totals.", "tally/report.py"),
    _edit(
        "It sorts upwards; the largest should come first.",
        "tally/report.py",
        "key=lambda item: item[1])",
        "key=lambda item: -item[1])",
    ),
    _bash("All tests again.", _ALL_TESTS),
    _bash("And the command from the report.", "python -m taly sample.ledger 2023-12"),
    _bash("A typing error of mine.", "python -m tally sample.ledger 2023-12"),
    _bash("The other months should still work.", "python -m tally sample.ledger 2023-11"),
    Step(
        "All ten tests pass and the December report prints. What was wrong: the month after "
        "December was month 13 of the same year (tally/periods.py); '-0' lost its sign, so small "
        "refunds were added (tally/money.py); the table was sorted upwards (tally/report.py)."
    ),
)
