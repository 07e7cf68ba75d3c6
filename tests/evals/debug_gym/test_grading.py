from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from leyline_evals.debug_gym.grading import left_out, mended, patch
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
