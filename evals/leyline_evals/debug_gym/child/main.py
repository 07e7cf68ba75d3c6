"""The process: an episode of debug-gym's, or the grading of what came of one."""

from __future__ import annotations

import ctypes
import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import lean, shell, tree
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
        wire.write(graded(task) if task["do"] == "grade" else episode(task, wire))
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
    return {"done": {"changes": env.changes(), "did": parent.did, "passed": bool(env.resolved)}}


def graded(task: Mapping[str, Any]) -> dict[str, Any]:
    """Run the tests that decide."""
    folder = Path(task["folder"])
    tree.write(folder, task["files"])
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    words = ["bash", "--noprofile", "--norc", "-c", task["grade"]]
    done = shell.run(words, str(folder), environment, task["seconds"])
    passed = re.findall(r"(\d+) passed", done.output)
    return {
        "graded": {
            "status": done.status,
            "passed": int(passed[-1]) if passed else 0,
            "output": shell.cut(done.output, 20_000),
        }
    }
