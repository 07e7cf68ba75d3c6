"""The house's own rules: what is public, what imports what, and how long a file may be."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import leyline_agent

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "leyline_agent": ROOT / "leyline_agent",
    "leyline_policies": ROOT / "policies" / "leyline_policies",
    "leyline_adapters": ROOT / "adapters" / "leyline_adapters",
    "leyline_evals": ROOT / "evals" / "leyline_evals",
}
HEAVY = {"torch", "numpy", "transformers", "litellm", "openai", "anthropic", "sqlite3"}


def sources(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found, f"no source under {folder}"
    return found


def imports(file: Path) -> Iterator[str]:
    """The top-level name of every module a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_public_names_are_the_documented_ones() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "api.md").read_text(), re.M)
    assert sorted(leyline_agent.__all__) == sorted(documented)
    assert sorted(set(documented)) == sorted(documented)
    for name in leyline_agent.__all__:
        assert getattr(leyline_agent, name) is not None


def test_import_is_light(tmp_path: Path) -> None:
    """Best of ten, in CPU seconds, bytecode cached: what a user's second start costs."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    code = (
        "import time; start = time.process_time(); import leyline_agent\n"
        "print(time.process_time() - start)\n"
        "import sys; print(*sys.modules, sep=',')\n"
    )
    best = float("inf")
    for _ in range(10):
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        seconds, modules = run.stdout.splitlines()
        assert not HEAVY & set(modules.split(","))
        best = min(best, float(seconds))
        if best < 0.2:
            break
    assert best < 0.2


def test_only_serving_imports_torch() -> None:
    root = PACKAGES["leyline_agent"]
    outside = [f for f in sources(root) if not f.is_relative_to(root / "serving")]
    using = [str(f) for f in outside if {"torch", "numpy", "transformers"} & set(imports(f))]
    assert using == []


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("leyline_agent", {"leyline_policies", "leyline_adapters", "leyline_evals"}),
        ("leyline_policies", {"leyline_adapters", "leyline_evals"}),
        ("leyline_adapters", {"leyline_policies", "leyline_evals"}),
    ],
)
def test_arrows_run_one_way(package: str, forbidden: set[str]) -> None:
    wrong = {str(f): forbidden & set(imports(f)) for f in sources(PACKAGES[package])}
    assert {file: names for file, names in wrong.items() if names} == {}


def test_no_source_file_is_over_400_lines() -> None:
    files = [f for f in tracked() if f.suffix == ".py" or f.parent == ROOT / "scripts"]
    lengths = {str(f.relative_to(ROOT)): f.read_text().count("\n") for f in files}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


def test_no_file_names_a_place_of_one_machine() -> None:
    place = re.compile("/(wo" + r"rk|root)/|\.libra" + r"ry\b")
    wrong = []
    for file in tracked():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        wrong += [f"{file.relative_to(ROOT)}: {m.group()}" for m in place.finditer(text)]
    assert wrong == []
