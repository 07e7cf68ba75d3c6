"""The tests that decide, told of in a way that what they print, and how they end, cannot.

A program: `python -P -s deciding.py FOLDER ARGUMENTS...`, in the repository, with arguments of
pytest's. pytest and what it needs are imported before anything of the repository can be; a token in
FOLDER, gone before the first test, signs the verdict that is written there when pytest is over. Who
ends the process before that leaves none.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["TOKEN", "VERDICT"]

TOKEN, VERDICT = "token", "verdict.json"


class Heard:
    """Which tests passed, which were skipped, and what failed: a pytest plugin."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.skipped: list[str] = []
        self.failed: list[str] = []

    def pytest_collectreport(self, report: Any) -> None:
        """A file that could not be imported, or skips as a whole."""
        self._note(report, [])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test's beginning, itself, or its end."""
        self._note(report, self.passed if report.when == "call" else [])

    def _note(self, report: Any, passed: list[str]) -> None:
        kept = self.failed if report.failed else self.skipped if report.skipped else passed
        kept.append(report.nodeid)


def main() -> None:
    """Run pytest, and write down what came of it."""
    import pytest
    from _pytest.config import default_plugins

    for name in default_plugins:
        import_module(f"_pytest.{name}")
    folder = Path(sys.argv[1])
    token = (folder / TOKEN).read_text("utf-8")
    (folder / TOKEN).unlink()
    arguments, sys.argv[1:] = sys.argv[2:], []
    sys.path.insert(0, str(Path.cwd()))  # As `python -m pytest` has it.
    heard = Heard()
    status = pytest.main(arguments, plugins=[heard])
    verdict = {**vars(heard), "token": token, "status": int(status)}
    (folder / VERDICT).write_text(json.dumps(verdict), "utf-8")
    sys.exit(status)


if __name__ == "__main__":
    main()
