"""The process: an episode of debug-gym's, or the grading of what came of one."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import deciding, lean, shell, tree
from .wire import Wire

__all__ = ["main"]

# prctl: orphans below become children of this process, and end with it; and what runs below may not
# look into it, nor write to its streams.
SUBREAPER, DUMPABLE = 36, 4


def main() -> None:
    """Do what the parent asks for first; what goes wrong is told to it."""
    wire = Wire()
    for option, value in ((SUBREAPER, 1), (DUMPABLE, 0)):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
    task = wire.read()
    try:
        wire.write(graded(task, wire) if task["do"] == "grade" else episode(task, wire))
    except Exception:
        wire.write({"failed": traceback.format_exc(limit=-4)})
    wire.read()
    os._exit(0)


def episode(task: Mapping[str, Any], wire: Wire) -> dict[str, Any]:
    """Run the agent until it submits, the tests pass, or the parent stops it."""
    lean.enter()
    from .agent import Agent, Parent, Stopped
    from .gym import Quiet, Repository

    logger = Quiet("leyline", level="WARNING")
    env = Repository(task, logger)
    parent = Parent(wire, logger)
    try:
        Agent(task, parent, logger).run(env)
    except Stopped:
        parent.did = None
    changed, left = env.changes()
    return {"done": {"changes": changed, "left": left, "did": parent.did}}


def graded(task: Mapping[str, Any], wire: Wire) -> dict[str, Any]:
    """Run the tests that decide; the parent is told before the first can do anything."""
    folder = Path(task["folder"])
    tree.write(folder, task["files"])
    told = {"PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    token = secrets.token_hex()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as aside:
        (Path(aside) / deciding.TOKEN).write_text(token, "utf-8")
        words = [sys.executable, "-P", "-s", "-B", deciding.__file__, aside, *task["arguments"]]
        wire.write({"began": True})
        done = shell.run(words, str(folder), {**os.environ, **told}, task["seconds"])
        verdict = _signed(Path(aside) / deciding.VERDICT, token)
    output = shell.cut(done.output, 20_000)
    return {"graded": {"status": done.status, "verdict": verdict, "output": output}}


def _signed(path: Path, token: str) -> dict[str, Any] | None:
    """The verdict in a file, when it is there and ours."""
    try:
        verdict: dict[str, Any] = json.loads(tree.text(path) or "")
        return verdict if verdict.pop("token") == token else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
