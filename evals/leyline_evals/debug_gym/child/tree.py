"""The repository's files, as texts by path: written down, and read back changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["changes", "text", "write"]

IGNORED = {".git", "__pycache__", ".pytest_cache", ".debugignore", ".debugreadonly"}
# What tools and package managers fill; so is each folder with a pyvenv.cfg.
FILLED = {"node_modules", ".venv", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".hypothesis"}
LARGEST = 1 << 20  # characters and bytes of a file
MOST, MOST_CHARS = 500, 8 << 20  # new files, and characters of all of them


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


def changes(root: Path, files: Mapping[str, str]) -> tuple[dict[str, str | None], list[str]]:
    """What is no longer as in `files`, and in words what of the new was left out.

    New texts by path, None for what is gone; what is no text, large, or a link, counts as gone. Of
    new files those beside the given ones come first, until they are too many.
    """
    changed = {name: now for name, text in files.items() if (now := _own(root, name)) != text}
    left: list[str] = []
    beside = {str(Path(name).parent) for name in files}
    found = [name for name in _walked(root, left) if name not in files]
    found.sort(key=lambda name: (str(Path(name).parent) not in beside, name))
    number, room, unread = 0, MOST_CHARS, 0
    for name in found:
        if (now := text(root / name)) is None or not _is_name(name):
            unread += 1
        elif number < MOST and len(now) <= room:
            changed[name] = now
            number, room = number + 1, room - len(now)
    if unread:
        left.append(f"{unread} new files that are no text of up to 1 MiB")
    if over := len(found) - unread - number:
        left.append(f"{over} new files, over {MOST} or {MOST_CHARS >> 20} MiB")
    return changed, left


def _walked(root: Path, left: list[str]) -> Iterator[str]:
    """Paths of files; folders that tools filled are stepped past, and put in `left`."""
    for folder, folders, names in os.walk(root):
        kept = []
        for name in sorted(set(folders) - IGNORED):
            if name in FILLED or Path(folder, name, "pyvenv.cfg").exists():
                left.append(ascii(str(Path(folder, name).relative_to(root)))[1:-1] + "/")
            else:
                kept.append(name)
        folders[:] = kept
        for name in sorted(set(names) - IGNORED):
            yield str(Path(folder, name).relative_to(root))


def _own(root: Path, name: str) -> str | None:
    """The text of a file in folders that are none but the repository's."""
    path = root / name
    return text(path) if path.parent.resolve() == (root.resolve() / name).parent else None


def _is_name(name: str) -> bool:
    """Whether others can be told of a path: names need not be text."""
    return name == name.encode(errors="replace").decode()


def text(path: Path) -> str | None:
    """A file's text; None for what is no text, large, a link, or not there."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST:
            return None
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        return None
