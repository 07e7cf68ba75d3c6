"""docs/timing.md and examples/timing.py, run as they stand."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_the_documents_snippet_runs(capsys):
    text = (ROOT / "docs" / "timing.md").read_text()
    (source,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    exec(compile(source, "timing.md", "exec"), {"__name__": "docs"})
    edits, held = map(int, re.findall(r"\d+", capsys.readouterr().out))
    assert (edits > 0, held > 0) == (True, True)


def test_the_example_shows_that_it_pays(capsys):
    runpy.run_path(str(ROOT / "examples" / "timing.py"), run_name="__main__")
    now, auto = capsys.readouterr().out.splitlines()
    price = [
        int(re.findall(r"price of ([\d,]+)", line)[0].replace(",", "")) for line in (now, auto)
    ]
    assert price[1] < price[0] / 2
