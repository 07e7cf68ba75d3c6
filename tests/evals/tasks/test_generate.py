from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

from leyline_agent.errors import LeylineError
from leyline_evals import tasks
from leyline_evals.tasks import DIFFICULTIES, Problem
from leyline_evals.tasks.bugs import HARD, MISSING
from leyline_evals.tasks.programs import failures, programs

SEEDS = range(8)
generate = cache(tasks.generate)


def visible(problem: Problem) -> list[str]:
    return [path for path in problem.files if "/test_" in path]


def mended(problem: Problem, *paths: str) -> dict[str, str]:
    """The repository with hidden tests, and with the gold text of these files."""
    gold = {path: problem.gold[path] for path in paths}
    return {**problem.files, **problem.hidden, **gold}


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("seed", SEEDS)
def test_broken_fails_and_gold_passes(seed: int, difficulty: int) -> None:
    problem = generate(seed, difficulty)
    assert failures(problem.files, visible(problem))
    assert failures(mended(problem), problem.hidden)
    sound = mended(problem, *problem.gold)
    assert failures(sound, [*visible(problem), *problem.hidden]) == set()


@pytest.mark.parametrize("difficulty", [4, 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_bug_must_be_mended(seed: int, difficulty: int) -> None:
    problem = generate(seed, difficulty)
    assert len(problem.gold) == difficulty - 2
    for left in problem.gold:
        files = mended(problem, *(path for path in problem.gold if path != left))
        assert failures(files, problem.hidden)
        assert failures(files, visible(problem))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_easiest_names_its_file_and_has_little_else(seed: int) -> None:
    problem = generate(seed, 1)
    (path,) = problem.gold
    (test,) = visible(problem)
    assert path in problem.instructions
    assert test in problem.instructions
    assert problem.kinds == (MISSING,)
    given, gold = ast.parse(problem.files[path]), ast.parse(problem.gold[path])
    (place,) = [n for n, one in enumerate(gold.body) if ast.dump(one) != ast.dump(given.body[n])]
    empty, whole = given.body[place], gold.body[place]
    assert isinstance(empty, ast.FunctionDef)
    assert isinstance(whole, ast.FunctionDef)
    assert f"function `{empty.name}` of" in problem.instructions
    assert [*map(ast.dump, empty.body)] == [ast.dump(whole.body[0])]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_middle_one_is_noticed_elsewhere_only(seed: int) -> None:
    problem = generate(seed, 3)
    (path,) = problem.gold
    name = path.rpartition("/")[2]
    (program,) = [one for one in programs() if path.startswith(f"{one.name}/")]
    is_leaf = name.removesuffix(".py") in program.leaves
    assert (f"tests/test_{name}" in problem.files) is not is_leaf


def test_the_hardest_has_a_bug_of_a_hard_kind() -> None:
    assert all(set(generate(seed, 5).kinds) & set(HARD) for seed in SEEDS)


def test_the_agent_sees_no_hidden_test() -> None:
    for difficulty in DIFFICULTIES:
        problem = generate(3, difficulty)
        assert not set(problem.files) & set(problem.hidden)
        assert not any("hidden" in path for path in problem.files)


def digest(problem: Problem) -> str:
    return hashlib.sha256(json.dumps(vars(problem), sort_keys=True).encode()).hexdigest()[:12]


def test_the_same_seed_gives_the_same_problem_in_another_process() -> None:
    script = "from leyline_evals.tasks import generate; import hashlib, json\n" + (
        "for d in (1, 3, 5): print(hashlib.sha256(json.dumps(vars(generate(7, d)),"
        " sort_keys=True).encode()).hexdigest()[:12])"
    )
    made = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "5"},
    )  # fmt: skip
    assert made.stdout.split() == [digest(generate(7, difficulty)) for difficulty in (1, 3, 5)]


def test_seeds_differ() -> None:
    for difficulty in DIFFICULTIES:
        assert len({digest(generate(seed, difficulty)) for seed in SEEDS}) == len(SEEDS)


def test_an_unknown_difficulty_is_told() -> None:
    with pytest.raises(LeylineError, match="from 1 to 5"):
        generate(1, 6)


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-B", *command.split()[1:], "-p", "no:asyncio"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def graded(problem: Problem, folder: Path) -> None:
    """pytest says of a problem what the generator says."""
    write(folder, problem.files)
    first = run(folder, problem.evaluate)
    assert first.returncode == 1, first.stdout
    write(folder, problem.hidden)
    assert run(folder, problem.grade).returncode == 1
    write(folder, problem.gold)
    assert run(folder, problem.evaluate).returncode == 0
    passed = run(folder, problem.grade)
    assert passed.returncode == 0, passed.stdout
    assert f"{problem.tests} passed" in passed.stdout


def test_pytest_agrees(tmp_path: Path) -> None:
    graded(generate(1, 3), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
@pytest.mark.parametrize("seed", range(100, 112))
def test_pytest_agrees_on_many(seed: int, difficulty: int, tmp_path: Path) -> None:
    graded(generate(seed, difficulty), tmp_path)
