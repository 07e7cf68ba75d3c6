from __future__ import annotations

import pytest

from leyline_agent.signals.scripts import scripted_writes


@pytest.mark.parametrize(
    "source",
    [
        "with open('a.py', 'w') as f: pass",
        'open("a.py", mode="a")',
        "open(\n    'a.py',\n    'r+')",
        "from pathlib import Path\nPath('a.py').write_text(text)",
        "path = 'a.py'\nopen(path, 'wb').write(b'')",
        "    target = Path('a.py')\n    target.write_text(target.read_text() + 'x')",
        "import pathlib\np = pathlib.Path('a.py')\np.write_bytes(b'')",
    ],
)
def test_a_literal_path_opened_for_writing(source: str) -> None:
    assert scripted_writes(source) == ("a.py",)


@pytest.mark.parametrize(
    "source",
    [
        "open('a.py').read()",
        "open('a.py', 'r')",
        "open(sys.argv[1], 'w')",
        "open(f'{name}.py', 'w')",
        "path = find()\nopen(path, 'w')",
        "print('written')",
        "",
    ],
)
def test_anything_else_writes_nothing_that_is_known(source: str) -> None:
    assert scripted_writes(source) == ()


def test_each_path_once_in_order() -> None:
    source = "open('b', 'w'); open('a', 'w'); open('b', 'a')"
    assert scripted_writes(source) == ("b", "a")


def test_a_patch_names_the_files_it_changes() -> None:
    patch = (
        "diff --git a/src/x.py b/src/x.py\n--- a/src/x.py\n+++ b/src/x.py\n@@ -1 +1 @@\n-a\n+b\n"
        "--- old.txt\t2026-01-01\n+++ new.txt\t2026-01-02\n--- a/gone.py\n+++ /dev/null\n"
    )
    assert scripted_writes(patch) == ("src/x.py", "new.txt")
