"""The conformance suite finds adapters out that break their contract."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest

from leyline_agent.adapter import Adapter, CallingAdapter, missing_members
from leyline_agent.directive import Mode
from leyline_agent.errors import LeylineError
from leyline_agent.testing import MockAdapter
from leyline_agent.testing.conformance import AdapterConformance

TESTS = [name for name, _ in inspect.getmembers(AdapterConformance) if name.startswith("test_")]


def failing(adapter: Any) -> set[str]:
    """The tests that an adapter fails, each on an engine of its own."""

    class Suite(AdapterConformance):
        tenants = False

        def open(self, tenant: str = "") -> Any:
            return adapter()

    failed = set()
    for name in TESTS:
        try:
            getattr(Suite(), name)()
        except SkipTest:
            pass
        except Exception:  # As for a runner of tests.
            failed.add(name.removeprefix("test_"))
    return failed


class Told(MockAdapter):
    """Changes what the receipts say."""

    def change(self, told: dict[str, Any]) -> None:
        raise NotImplementedError

    def complete(self, request: Any) -> Any:
        answer = super().complete(request)
        if "leyline" in answer:
            self.change(answer["leyline"])
        return answer


class Weaker(Told):
    """Repairs nothing, and says that it did."""

    def change(self, told: dict[str, Any]) -> None:
        told["reused_spliced"] += told["recomputed"]
        told["recomputed"] = 0


class NoReason(Told):
    """Computes everything again, as if it had been asked to."""

    def change(self, told: dict[str, Any]) -> None:
        for edit in told["edits"]:
            edit["mode_used"] = Mode.FORGET


class Sloppy(Told):
    """Counts a token too many."""

    def change(self, told: dict[str, Any]) -> None:
        told["prompt"] += 1


class Forgetful(MockAdapter):
    """Caches nothing, and says that it has receipts."""

    def receipt(self, response: Any) -> None:
        return None


class Twice(MockAdapter):
    """Does every request again, however often it was done."""

    def complete(self, request: Any) -> Any:
        self._answered.clear()
        answer = super().complete(request)
        answer["usage"]["prompt_tokens"] += len(self.commits) + len(self.model.requests)
        return answer


class Leaking(Told):
    """Finds a prompt in the cache that nobody but another session has edited."""

    def change(self, told: dict[str, Any]) -> None:
        if told["base_version"] == 0:
            told["reused_exact"], told["prefilled"] = told["prompt"], 0

    def complete(self, request: Any) -> Any:
        answer = super().complete(request)
        if "leyline" in answer:
            answer["usage"]["prompt_tokens_details"]["cached_tokens"] = 0
        return answer


class Boastful(MockAdapter):
    """Declares that it edits ahead, and does nothing."""

    def edit_ahead(self, request: Any, commit: Any) -> Any:
        raise LeylineError("not today")


def test_the_mock_keeps_its_contract() -> None:
    assert failing(MockAdapter) == set()


@pytest.mark.parametrize(
    ("adapter", "found"),
    [
        (Weaker, {"repair"}),
        (NoReason, {"amortize", "repair"}),
        (Sloppy, {"a_turn_is_answered_and_counted"}),
        (Forgetful, {"a_turn_is_answered_and_counted"}),
        (Twice, {"a_retry_acts_once"}),
        (Leaking, {"a_turn_is_answered_and_counted", "spliced_kv_serves_no_other_session"}),
        (Boastful, {"an_edit_ahead_is_found_done"}),
    ],
)
def test_one_that_breaks_it_is_found_out(adapter: Any, found: set[str]) -> None:
    failed = failing(adapter)
    assert found <= failed
    assert len(failed) < len(TESTS)


def test_all_that_is_missing_is_named() -> None:
    assert missing_members(object(), calling=True) == [
        *("name", "capabilities", "prepare", "receipt"),
        *("complete", "stream", "acomplete", "astream", "apply", "edit_ahead"),
    ]
    named = set(missing_members(object(), calling=True))
    declared = {name for kind in (Adapter, CallingAdapter) for name in vars(kind)}
    assert named == {name for name in declared if not name.startswith("_")}
    assert missing_members(MockAdapter(), calling=True) == []


SUITES = """
from leyline_agent.testing import AdapterConformance, MockAdapter


class Sloppy(MockAdapter):
    def _told(self, made, receipt):
        told = super()._told(made, receipt)
        told["usage"]["prompt_tokens"] = 98765
        return told


class TestSloppy(AdapterConformance):
    def open(self, tenant=""):
        return Sloppy()


class TestWithout(AdapterConformance):
    pass
"""


def test_what_a_runner_prints_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(SUITES)
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "counted"]
    run = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert "98765" in run.stdout
    assert "define open(self, tenant='') in TestWithout" in run.stdout
