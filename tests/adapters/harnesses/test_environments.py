"""The frameworks' table: every harness is tested, in versions that its extra allows."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from leyline_agent.errors import AdapterError

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "tests" / "harnesses"
TABLE: dict[str, dict[str, Any]] = tomllib.loads((FOLDER / "environments.toml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
HARNESSES: dict[str, str] = PROJECT["entry-points"]["leyline.harnesses"]
PACKAGES = {"openai_agents": "agents"}

# SWE-agent's needs nothing of it; mini-swe-agent's imports litellm first, which takes seconds.
LEFT_OUT = ("swe_agent", "mini_swe_agent")


def test_every_test_of_a_framework_has_an_environment() -> None:
    listed = {file for entry in TABLE.values() for file in entry["tests"]}
    assert listed == {path.name for path in FOLDER.glob("test_*.py")}


def test_every_harness_is_tested() -> None:
    tested = {file for entry in TABLE.values() for file in entry["tests"]}
    assert {f"test_{name}.py" for name in HARNESSES} <= tested


@pytest.mark.parametrize("name", [name for name in HARNESSES if name not in LEFT_OUT])
def test_a_framework_that_is_not_here_is_told_with_what_installs_it(name: str) -> None:
    if importlib.util.find_spec(PACKAGES.get(name, name)):
        pytest.skip("it is here")
    with pytest.raises(AdapterError, match="pip install"):
        importlib.import_module(HARNESSES[name].split(":")[0])


@pytest.mark.parametrize("name", TABLE)
def test_the_versions_tested_lie_in_the_range_of_the_extra(name: str) -> None:
    entry = TABLE[name]
    pinned = dict(one.split("==") for one in entry["requirements"] if "==" in one)
    for requirement in EXTRAS.get(entry.get("extra", ""), ()):
        package, limits = re.match(r"([\w.-]+)([^;]*)", requirement).groups()  # type: ignore[union-attr]
        assert package in pinned, f"{name} does not say which {package} is tested"
        version = [int(part) for part in pinned[package].split(".")]
        for sign, limit in re.findall(r"(>=|<|==)([\d.]+)", limits):
            bound = [int(part) for part in limit.split(".")]
            assert {">=": version >= bound, "<": version < bound, "==": version == bound}[sign]
