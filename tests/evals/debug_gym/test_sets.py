from __future__ import annotations

import json
from pathlib import Path

import pytest

from leyline_evals.debug_gym import sets
from leyline_evals.solve.errors import EvalError


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_generated_ones_go_by_difficulty_and_seed() -> None:
    names = [problem.id for problem in sets.generated(range(5, 7), [1, 4])]
    assert [name[:7] for name in names] == ["d1-0005", "d1-0006", "d4-0005", "d4-0006"]


def test_mini_nightmare_is_read_out_of_the_package(tmp_path: Path) -> None:
    put(
        tmp_path / "data" / "mini_nightmare",
        {
            "counter/counter_code.py": "x = 1\n",
            "counter/test.py": "def test(): assert False\n",
            "patcher/patcher_code.py": "",
            "pandas_dataframe/test.py": "",
        },
    )
    (problem,) = sets.mini_nightmare(tmp_path)
    assert problem.id == "counter"
    assert set(problem.files) == {"counter_code.py", "test.py"}
    assert problem.readonly == ("test.py",)
    with pytest.raises(EvalError, match="mini_nightmare is looked for in it"):
        list(sets.mini_nightmare(tmp_path / "nowhere"))


def test_an_exercise_has_its_text_and_its_example(tmp_path: Path) -> None:
    about = {"solution": ["leap.py"], "test": ["leap_test.py"], "example": [".meta/example.py"]}
    folder = "exercises/practice/leap"
    put(
        tmp_path,
        {
            f"{folder}/.meta/config.json": json.dumps({"files": about}),
            f"{folder}/.meta/example.py": "gold\n",
            f"{folder}/.docs/instructions.md": "# Leap\n",
            f"{folder}/.docs/instructions.append.md": "More.\n",
            f"{folder}/leap.py": "stub\n",
            f"{folder}/leap_test.py": "test\n",
        },
    )
    (problem,) = sets.exercism(tmp_path)
    assert problem.instructions == "# Leap\n\nMore."
    assert problem.gold == {"leap.py": "gold\n"}
    assert problem.readonly == ("leap_test.py",)
    assert problem.grade.endswith("-q leap_test.py")
    with pytest.raises(EvalError, match="exercism/python"):
        list(sets.exercism(tmp_path / "nowhere"))


def test_quixbugs_come_with_what_their_tests_need(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "conftest.py": "",
            "python_programs/gcd.py": "wrong\n",
            "correct_python_programs/gcd.py": "right\n",
            "python_testcases/test_gcd.py": "",
            "python_testcases/load_testdata.py": "",
            "json_testcases/gcd.json": "[]",
        },
    )
    (problem,) = sets.quixbugs(tmp_path)
    assert len(problem.files) == 5
    assert problem.gold == {"python_programs/gcd.py": "right\n"}
    with pytest.raises(EvalError, match="no checkout of jkoppel/QuixBugs"):
        list(sets.quixbugs(tmp_path / "nowhere"))
    (tmp_path / "correct_python_programs" / "gcd.py").unlink()
    with pytest.raises(EvalError, match="cannot be read"):
        list(sets.quixbugs(tmp_path))
