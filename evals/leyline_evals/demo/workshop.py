"""The scripted agent's tools: a shell and a file editor, at work on a copy of `repo/`.

The tools are real, what they print is what happened. Only what differs from run to run is made
the same: the temporary folder is called `/repo`, tests take `0.00s`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["TOOLS", "Workshop"]

_SOURCE = Path(__file__).parent / "repo"
_SHOWN = "/repo"

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Run a shell command in /repo.",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "str_replace_editor",
            "description": "View a file, or replace a text that occurs in it once.",
            "parameters": {
                "type": "object",
                "properties": {
                    "command": {"type": "string", "enum": ["view", "str_replace"]},
                    "path": {"type": "string"},
                    "view_range": {"type": "array", "items": {"type": "integer"}},
                    "old_str": {"type": "string"},
                    "new_str": {"type": "string"},
                },
                "required": ["command", "path"],
            },
        },
    },
]


class Workshop:
    """A copy of the repository under `folder`, and the tools that work on it."""

    def __init__(self, folder: Path) -> None:
        self.root = (folder / "repo").resolve()
        shutil.copytree(_SOURCE, self.root, ignore=shutil.ignore_patterns("__pycache__"))
        self.bin = (folder / "bin").resolve()
        self.bin.mkdir()
        (self.bin / "python").symlink_to(sys.executable)

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """What the tool answers."""
        if name == "bash":
            return self._bash(**arguments)
        return self._edit(**arguments)

    def _bash(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        output = self._same_every_time(done.stdout).rstrip("\n")
        status = f"[Command finished with exit code {done.returncode}]"
        return f"{output}\n{status}" if output else status

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "LC_ALL": "C",
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNODEBUGRANGES": "1",  # the marks under source lines differ between versions
        }

    def _same_every_time(self, output: str) -> str:
        output = output.replace(str(self.root), _SHOWN).replace(f"{self.bin}/", "")
        return re.sub(r"in \d+\.\d+s", "in 0.00s", output)

    def _edit(
        self,
        command: str,
        path: str,
        view_range: tuple[int, int] | None = None,
        old_str: str = "",
        new_str: str = "",
    ) -> str:
        file = self.root / Path(path).relative_to(_SHOWN)
        if not file.is_file():
            return f"ERROR: the path {path} does not exist. Please provide a valid path."
        if command == "view":
            return _lines(file.read_text(), *(view_range or ()))
        return _replace(file, path, old_str, new_str)


def _lines(text: str, first: int = 1, last: int | None = None) -> str:
    return "\n".join(text.splitlines()[first - 1 : last])


def _replace(file: Path, path: str, old: str, new: str) -> str:
    text = file.read_text()
    count = text.count(old)
    if count == 0:
        return (
            f"ERROR: No replacement was performed, old_str `{old}` did not appear verbatim "
            f"in {path}."
        )
    if count > 1:
        return (
            f"ERROR: No replacement was performed. Multiple occurrences of old_str `{old}` "
            f"in {path}. Please ensure it is unique."
        )
    file.write_text(text.replace(old, new))
    return f"The file {path} has been edited successfully."
