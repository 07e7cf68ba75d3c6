from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from leyline_evals.debug_gym.child import tree


def test_a_tree_is_written_and_its_changes_read(tmp_path: Path) -> None:
    files = {"a/b.py": "x\n", "c.py": "y\n", "d.py": "z\n"}
    tree.write(tmp_path, files)
    assert tree.changes(tmp_path, files) == ({}, [])
    (tmp_path / "a/b.py").write_text("other\n")
    (tmp_path / "c.py").unlink()
    (tmp_path / "new.py").write_text("n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "large").write_text("x" * (tree.LARGEST + 1))
    for ignored in (".git", "__pycache__"):
        (tmp_path / ignored).mkdir()
        (tmp_path / ignored / "f.py").write_text("")
    changed = {"a/b.py": "other\n", "c.py": None, "new.py": "n\n"}
    left = ["3 new files that are no text of up to 1 MiB"]
    assert tree.changes(tmp_path, files) == (changed, left)


@pytest.mark.parametrize("place", ["data", ".venv", "env"])
def test_many_new_files_keep_no_change_of_a_given_one_out(tmp_path: Path, place: str) -> None:
    files = {"pkg/m.py": "bug\n", "pkg/n.py": "n\n"}
    tree.write(tmp_path, files)
    tree.write(tmp_path, {f"{place}/{n:03}.py": "" for n in range(tree.MOST + 9)})
    if place == "env":
        (tmp_path / place / "pyvenv.cfg").touch()
    tree.write(tmp_path, {"pkg/m.py": "mended\n", "pkg/new.py": "new\n"})
    changed, left = tree.changes(tmp_path, files)
    assert {name: changed[name] for name in changed if name.startswith("pkg")} == {
        "pkg/m.py": "mended\n",
        "pkg/new.py": "new\n",
    }
    if place == "data":
        assert len(changed) == tree.MOST + 1
        assert left == ["10 new files, over 500 or 8 MiB"]
    else:
        assert len(changed) == 2
        assert left == [f"{place}/"]


def test_new_files_have_a_size_together(tmp_path: Path) -> None:
    large = {f"{n}.txt": "x" * tree.LARGEST for n in range(10)}
    tree.write(tmp_path, large)
    changed, left = tree.changes(tmp_path, {})
    assert len(changed) == 8
    assert left == ["2 new files, over 500 or 8 MiB"]


def test_links_and_names_that_are_no_text_lead_nowhere(tmp_path: Path) -> None:
    root = tmp_path / "root"
    files = {"a/b.py": "x\n", ".venv/c.py": "y\n"}
    tree.write(root, files)
    (root / "a").rename(tmp_path / "elsewhere")
    (root / "a").symlink_to(tmp_path / "elsewhere")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.py")).write_text("z\n")
    changed, left = tree.changes(root, files)
    assert changed == {"a/b.py": None}
    assert left == [".venv/", "1 new files that are no text of up to 1 MiB"]
    json.dumps(changed).encode()


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not below"):
        tree.write(tmp_path / "in", {"../out.py": ""})
