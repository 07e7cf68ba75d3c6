"""Where commands may run on this machine: Docker, or a bubblewrap around a checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.sandbox import Bounds, bubblewrap, require

__all__ = ["BOUNDS", "Place", "box", "check_bubblewrap", "docker_version"]

Place = Literal["auto", "docker", "bubblewrap"]

CHECKOUT = "/testbed"  # Where eval scripts look for the repository.
BOUNDS = Bounds(memory=4 << 30, disk=1 << 30, processes=256)
OUTPUT = 8 << 20  # Bytes of a command's output that are kept.
_VARIABLES = {
    "HOME": "/tmp",
    "USER": "agent",
    "LANG": "C.UTF-8",
    "PAGER": "cat",
    "PYTHONDONTWRITEBYTECODE": "1",
    **{f"GIT_{who}_NAME": "agent" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "agent@localhost" for who in ("AUTHOR", "COMMITTER")},
}


def box(checkout: Path, folders: Sequence[str], bounds: Bounds = BOUNDS) -> dict[str, Any]:
    """A bubblewrap as `boxes.Box` takes it, in which of the machine only the checkout changes.

    Args:
        checkout: the repository's folder; it stands at /testbed.
        folders: what the instance's Python needs, read-only; their `bin` are first on PATH.
        bounds: what commands may take.
    """
    programs = ":".join(f"{folder}/bin" for folder in folders)
    variables = {**_VARIABLES, "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin"}
    paths = [Path(folder) for folder in folders]
    return {
        "argv": bubblewrap(paths, ["/tmp"], variables, bounds, {checkout: CHECKOUT}),
        "checkout": str(checkout),
        "processes": bounds.processes,
        "disk": bounds.disk,
        "output": OUTPUT,
    }


def check_bubblewrap() -> None:
    """That commands can be boxed here.

    Raises:
        EvalError: bubblewrap is not installed, or may not; the error says what to do.
    """
    try:
        require("bubblewrap")
    except EvalError as error:
        what = str(error).partition(" Or --sandbox")[0]
        raise EvalError(f"{what} Instances that have an image run in Docker, too") from error


@lru_cache(maxsize=1)
def docker_version() -> str:
    """The version of the Docker daemon that answers here; "" when none does."""
    program = os.environ.get("MSWEA_DOCKER_EXECUTABLE", "docker")
    command = [program, "version", "--format", "{{.Server.Version}}"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
