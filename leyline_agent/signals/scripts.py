"""Which files a Python script or a patch writes, as far as its text says so literally.

Agents often edit files with a small script: `open('a.py', 'w')`, `Path('a.py').write_text(...)`,
or the same through a variable that was assigned a string. Only such literal names count.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["scripted_writes"]

_STRING = r"""[rRuU]?(?P<q>['"])(?P<text>[^'"\n\\{}]+)(?P=q)"""
_NAME = r"(?P<name>[A-Za-z_]\w*)"
_ASSIGNED = re.compile(rf"^[ \t]*{_NAME}[ \t]*=[ \t]*(?:(?:pathlib\.)?Path\()?{_STRING}", re.M)
_OPENED = re.compile(
    rf"""\bopen\(\s*(?:{_STRING}|{_NAME})\s*,\s*(?:mode\s*=\s*)?['"](?:[wax]|r[bt]?\+)"""
)
_WRITTEN = re.compile(rf"(?:\bPath\(\s*(?:{_STRING})\s*\)|\b{_NAME})\.write_(?:text|bytes)\(")


_PATCHED = re.compile(r"^\+\+\+ (?:b/)?(?P<path>[^\s/][^\t\n\r]*)", re.M)


@lru_cache(maxsize=512)
def scripted_writes(source: str) -> tuple[str, ...]:
    """The paths a script opens for writing, or a patch changes, in order, each once."""
    if "\n+++ " in source:
        return tuple(dict.fromkeys(_PATCHED.findall(source)))
    if "open(" not in source and ".write_" not in source:
        return ()
    assigned = {match["name"]: match["text"] for match in _ASSIGNED.finditer(source)}
    paths = (
        match["text"] or assigned.get(match["name"])
        for pattern in (_OPENED, _WRITTEN)
        for match in pattern.finditer(source)
    )
    return tuple(dict.fromkeys(path for path in paths if path))
