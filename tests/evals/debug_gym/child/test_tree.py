from __future__ import annotations

from pathlib import Path

import pytest

from leyline_evals.debug_gym.child import tree


def test_a_tree_is_written_and_its_changes_read(tmp_path: Path) -> None:
    files = {"a/b.py": "x\n", "c.py": "y\n", "d.py": "z\n"}
    tree.write(tmp_path, files)
    assert tree.changes(tmp_path, files) == {}
    (tmp_path / "a/b.py").write_text("other\n")
    (tmp_path / "c.py").unlink()
    (tmp_path / "new.py").write_text("n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "link").symlink_to("/etc/hostname")
    (tmp_path / "large").write_text("x" * (tree.LARGEST + 1))
    for ignored in (".git", "__pycache__"):
        (tmp_path / ignored).mkdir()
        (tmp_path / ignored / "f.py").write_text("")
    assert tree.changes(tmp_path, files) == {"a/b.py": "other\n", "c.py": None, "new.py": "n\n"}


def test_a_path_that_leads_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not below"):
        tree.write(tmp_path / "in", {"../out.py": ""})
