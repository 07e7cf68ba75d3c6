"""The notebooks: run as they stand, cell by cell, and kept without outputs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Run a cell; the value of its last expression, which a notebook shows."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return None
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == ["first_steps.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_stripped_and_links_lead_somewhere(path: Path) -> None:
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells(path, "code"))
    text = "".join(line for c in cells(path, "markdown") for line in c["source"])
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.model
@pytest.mark.usefixtures("embedded_gguf")
def test_the_first_steps_run(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "notebook"}
    shown = None
    for cell in cells(ROOT / "notebooks" / "first_steps.ipynb", "code"):
        shown = run_cell("".join(cell["source"]), names)
    out = capsys.readouterr().out
    assert re.search(r"^message \d+ failed: ", out, re.M)
    assert re.search(r"^message \d+ is stale: ", out, re.M)
    assert re.search(r"^turn \d+: message \d+, ", out, re.M)
    assert out.count("append_only ") == 2
    page = shown._repr_html_()
    assert page.count("<polyline") == 3
    assert "truncate_older_than:n=5,max_chars=200" in page
