from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leyline_evals.debug_gym.grading import arguments, judged, left_out, mended, patch
from leyline_evals.solve.errors import EvalError
from leyline_evals.tasks import generate

PROBLEM = replace(
    generate(1, 1),
    files={"p/m.py": "a = 1\nb = 2\n", "p/n.py": "c = 3", "tests/test_m.py": "t"},
    hidden={"hidden/test_m.py": "h"},
    readonly=("tests/", "fixed.py"),
)


def test_changes_are_graded_with_the_hidden_tests() -> None:
    changes = {"p/m.py": "a = 2\n", "p/n.py": None, "p/new.py": "d = 4\n"}
    assert mended(PROBLEM, changes) == {
        "p/m.py": "a = 2\n",
        "p/new.py": "d = 4\n",
        "tests/test_m.py": "t",
        "hidden/test_m.py": "h",
    }
    assert left_out(PROBLEM, changes) == []


@pytest.mark.parametrize(
    "path",
    [
        "tests/test_m.py",
        "tests/new.py",
        "fixed.py",
        "conftest.py",
        "p/conftest.py",
        "pytest.ini",
        "sitecustomize.py",
        "_pytest/__init__.py",
        "../escape.py",
        "p/../../escape.py",
        "/etc/passwd",
        ".git/hooks/pre-commit",
        "tests",
        "hidden",
        "hidden/test_m.py/x.py",
    ],
)
def test_what_decides_how_tests_run_is_put_back(path: str) -> None:
    changes = {path: "assert False\n"}
    assert left_out(PROBLEM, changes) == [path]
    assert mended(PROBLEM, changes) == {**PROBLEM.files, **PROBLEM.hidden}


def test_a_hidden_test_wins_over_one_of_the_same_name() -> None:
    assert mended(PROBLEM, {"hidden/test_m.py": "mine"})["hidden/test_m.py"] == "h"


def test_the_patch_can_be_applied(tmp_path: Path) -> None:
    changes = {"p/m.py": "a = 2\nb = 2\n", "p/n.py": None, "new.py": "d = 4"}
    for name, text in PROBLEM.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    made = patch(PROBLEM, changes)
    subprocess.run(
        ["git", "apply", "--verbose", "-"], cwd=tmp_path, input=made, text=True, check=True
    )
    assert (tmp_path / "p/m.py").read_text() == "a = 2\nb = 2\n"
    assert (tmp_path / "new.py").read_text() == "d = 4"
    assert not (tmp_path / "p/n.py").exists()
    assert patch(PROBLEM, {}) == ""


def verdict(*passed: str, skipped: tuple[str, ...] = (), failed: int = 0) -> dict[str, Any]:
    """As pytest's plugin writes it."""
    return {
        "passed": passed,
        "skipped": skipped,
        "failed": ["x"] * failed,
        "status": int(failed > 0),
    }


def test_all_hidden_tests_must_have_passed() -> None:
    problem = replace(PROBLEM, tests=2)
    assert judged(problem, 0, verdict("h::a", "h::b")) == (True, "2 of 2 tests passed")
    assert judged(problem, 0, verdict("h::a")) == (False, "1 of 2 tests passed")
    assert not judged(problem, 1, verdict("h::a", "h::b"))[0]
    assert not judged(problem, 0, verdict("h::a", "h::b", "h::c"))[0]
    assert not judged(problem, 1, verdict("h::a", "h::b", failed=1))[0]
    told = judged(problem, 0, None)
    assert told == (False, "the tests that decide ended without a verdict (exit status 0)")


TESTS = """
import pytest, unittest

@pytest.mark.parametrize("n", [1, 2])
def test_each(n): ...

def test_slow():
    pytest.skip("takes long")

class Base:
    def test_of_nobody(self): ...

class ATest(unittest.TestCase):
    def test_a(self): ...
    @unittest.skip("not yet")
    def test_b(self): ...
"""
ALL = ("t.py::test_each[1]", "t.py::test_each[2]", "t.py::ATest::test_a")
SKIPS = ("t.py::test_slow", "t.py::ATest::test_b")


def test_where_no_number_is_known_each_test_of_the_files_must_have_passed() -> None:
    problem = replace(
        PROBLEM,
        files={"t.py": TESTS},
        hidden={},
        tests=0,
        grade="python -m pytest -p no:cacheprovider -q t.py",
    )
    assert judged(problem, 0, verdict(*ALL, skipped=SKIPS)) == (True, "3 tests passed")
    assert judged(problem, 0, verdict(*ALL, *SKIPS))[0]
    told = judged(problem, 0, verdict(*ALL[:2], skipped=SKIPS))
    assert told == (False, "2 tests passed, but not t.py::ATest::test_a")
    for skipped in ALL:
        left = [test for test in ALL if test != skipped]
        assert not judged(problem, 0, verdict(*left, skipped=(*SKIPS, skipped)))[0]
    assert not judged(problem, 0, verdict(skipped=(*SKIPS, *ALL)))[0]
    assert not judged(replace(problem, files={"t.py": ""}), 0, verdict("t.py::test_x"))[0]


def test_only_pytest_decides() -> None:
    assert arguments(PROBLEM) == ["-p", "no:cacheprovider", "-q", "hidden"]
    with pytest.raises(EvalError, match="'make check' cannot decide"):
        arguments(replace(PROBLEM, grade="make check"))
