"""The notebooks: kept without outputs, and executed as Jupyter executes them (`make notebooks`)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS = 300  # a cell, on a busy machine

# What each must show: that what it is about really happened, not only that no cell failed.
SHOWN = {
    "1_quickstart": [
        r"removed \.\.\.\]",
        r"repair -> repair \(asked\)",
        r"edits, spliced +prompts",
    ],
    "2_write_a_policy": [
        r"message 10, failed: ",
        r"no option 'kep'; did you mean 'keep'",
        r"skipped messages \[1, 2\) of careless: BrokenToolPair",
        r"24 edits",
    ],
    "3_read_a_trajectory": [
        r"(?m)^message \d+ failed: ",
        r"(?m)^message \d+ is stale: ",
        r"amortize +prompts .* 1\.0\d x append_only",
        r"(?m)^auto:prices=anthropic +21 edits in 4 turns",
    ],
    "4_fidelity": [
        r"3 edits of the recording and 3 generated ones",
        r"unrotated +KL [1-9]|unrotated +KL 0\.[1-9]",
        r"amortize +KL 0\.0",
        r"too few to tell",
    ],
}
FIGURES = {"1_quickstart": 1, "2_write_a_policy": 0, "3_read_a_trajectory": 2, "4_fidelity": 1}


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """The notebook's cells of one kind."""
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def test_these_are_the_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == sorted(SHOWN) == sorted(FIGURES)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped_and_links_lead_somewhere(path: Path) -> None:
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells(path, "code"))
    text = "".join(line for c in cells(path, "markdown") for line in c["source"])
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
        assert (path.parent / target).exists(), target


def outputs(path: Path) -> Iterator[dict[str, Any]]:
    """What a notebook shows, executed by a kernel of its own."""
    nbformat = pytest.importorskip("nbformat", reason="needs the extra notebooks")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra notebooks")
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS, resources=where).execute()
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


@pytest.mark.notebook
@pytest.mark.model
@pytest.mark.usefixtures("embedded_gguf")
# Of Jupyter's own making, as its kernel starts.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    shown = list(outputs(path))
    text = "".join(output.get("text", "") for output in shown if output["output_type"] == "stream")
    for pattern in SHOWN[path.stem]:
        assert re.search(pattern, text), f"{pattern!r} is not in:\n{text}"
    figures = [output for output in shown if "image/png" in output.get("data", {})]
    assert len(figures) == FIGURES[path.stem]
