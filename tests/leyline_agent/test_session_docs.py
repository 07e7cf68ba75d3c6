"""The snippets of the documents about sessions, run as they stand."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def snippets(name):
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / name).read_text(), re.M | re.S)


@pytest.mark.parametrize(
    ("source", "printed"),
    [
        (snippets("wrap.md")[0], "There is one file.\nStats(turns=2, failed=0"),
        (snippets("wrap.md")[1], "About two million. 2\n"),
        (snippets("wrap.md")[2], "2 conversations ()\n"),
        (snippets("providers.md")[0], "140 90 90 0\n"),
        (snippets("providers.md")[1], ""),
        (snippets("testing.md")[0], ""),
    ],
)
def test_snippets_run(source, printed, capsys):
    exec(compile(source, "docs", "exec"), {"__name__": "docs"})
    assert capsys.readouterr().out.startswith(printed)
