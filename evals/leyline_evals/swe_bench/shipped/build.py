"""Makes `instances.jsonl` of the folders here: `python -m leyline_evals.swe_bench.shipped.build`.

Each has the repository (`repo/`), files that mend it (`fix/`), its tests with those that decide
(`tests/`), and what is told of the problem (`problem.md`). Which tests fail and which pass is found
by running them.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leyline_evals.swe_bench.checkouts import commit, git

__all__ = ["built", "main"]

FOLDER = Path(__file__).parent
EVAL = """\
#!/bin/bash
set -uxo pipefail
cd /testbed
git checkout {base} -- tests
git apply -v - <<'END_OF_TEST_PATCH'
{patch}END_OF_TEST_PATCH
: '>>>>> Start Test Output'
python -m pytest -rA -p no:cacheprovider tests
: '>>>>> End Test Output'
git checkout {base} -- tests
"""


def built(folder: Path) -> dict[str, Any]:
    """The row of one instance's folder."""
    name = folder.name
    files = _texts(folder / "repo")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "work"
        base = commit(files, work)
        _write(work, _texts(folder / "tests"))
        test_patch = git(work, "diff", "--no-color", "--no-ext-diff")
        before = _outcomes(work)
        git(work, "checkout", "-q", "--", ".")
        _write(work, _texts(folder / "fix"))
        patch = git(work, "diff", "--no-color", "--no-ext-diff")
        _write(work, _texts(folder / "tests"))
        after = _outcomes(work)
    passing = sorted(test for test, outcome in after.items() if outcome == "PASSED")
    return {
        "instance_id": name,
        "repo": name.rpartition("-")[0].replace("__", "/"),
        "version": "1",
        "base_commit": base,
        "problem_statement": (folder / "problem.md").read_text(),
        "hints_text": "",
        "created_at": "2026-01-01T00:00:00Z",
        "patch": patch,
        "test_patch": test_patch,
        "FAIL_TO_PASS": [test for test in passing if before.get(test) != "PASSED"],
        "PASS_TO_PASS": [test for test in passing if before.get(test) == "PASSED"],
        "image": "none",
        "eval_script": EVAL.format(base=base, patch=test_patch),
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        "files": files,
    }


def main() -> None:
    """Write the file anew."""
    folders = sorted(path.parent for path in FOLDER.glob("*/problem.md"))
    lines = [json.dumps(built(folder), ensure_ascii=False) + "\n" for folder in folders]
    (FOLDER / "instances.jsonl").write_text("".join(lines), encoding="utf-8")


def _texts(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in paths
        if "__pycache__" not in path.parts
    }


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def _outcomes(folder: Path) -> dict[str, str]:
    """How each test ends."""
    command = [sys.executable, "-m", "pytest", "-rA", "-p", "no:cacheprovider", "-q", "tests"]
    done = subprocess.run(
        command, cwd=folder, env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.findall(r"^(PASSED|FAILED|ERROR) (\S+::.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return {test: outcome for outcome, test in found}


if __name__ == "__main__":
    main()
