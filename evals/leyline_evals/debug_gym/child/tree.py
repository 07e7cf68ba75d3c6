"""The repository's files, as texts by path: written down, and read back changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["changes", "text", "write"]

IGNORED = {".git", "__pycache__", ".pytest_cache", ".debugignore", ".debugreadonly"}
LARGEST = 1 << 20
MOST = 500


def write(root: Path, files: Mapping[str, str]) -> None:
    """Write texts below a folder.

    Raises:
        ValueError: a path leads out of it.
    """
    for name, text in files.items():
        path = root / name
        if not path.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{name} is not below {root}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def changes(root: Path, files: Mapping[str, str]) -> dict[str, str | None]:
    """What is no longer as in `files`: new texts by path, None for what is gone.

    What is no text, large, or a link, counts as gone.
    """
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in IGNORED)
        for name in sorted(names):
            path = Path(folder, name)
            if name not in IGNORED and (read := text(path)) is not None and len(found) < MOST:
                found[str(path.relative_to(root))] = read
    changed: dict[str, str | None] = {
        name: text for name, text in found.items() if files.get(name) != text
    }
    return changed | {name: None for name in files if name not in found}


def text(path: Path) -> str | None:
    """A file's text; None for what is no text, large, a link, or not there."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return None
