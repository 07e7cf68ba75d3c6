"""debug-gym's process: in a sandbox, with its environment, and nothing else of the machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leyline_evals.solve import sandbox
from leyline_evals.solve.child import Child
from leyline_evals.solve.environments import Made
from leyline_evals.solve.sandbox import Bounds, Kind

__all__ = ["Box", "opened"]

TESTBED = "/testbed"
CHILD = Path(__file__).resolve().parent / "child"
START = "import sys; sys.path.insert(0, sys.argv[1]); from child.main import main; main()"


class Box(Child):
    """The process.

    Attributes:
        folder: where the repository is, as the process sees it.
    """

    folder: str = TESTBED


@contextmanager
def opened(made: Made, kind: Kind, bounds: Bounds) -> Iterator[Box]:
    """A process of debug-gym's; at the end all of it is over, and what it wrote is gone.

    Raises:
        EvalError: there is no such sandbox here.
    """
    bare = Path(tempfile.mkdtemp(prefix="leyline-")) if kind == "none" else None
    home = str(bare / "home") if bare else "/tmp"
    # A path in /tmp is the sandbox's own there: its size is bounded as the repository's is.
    words = sandbox.command(
        kind,
        read_only=(made.folder, made.base, CHILD),
        scratch=(TESTBED, "/tmp"),
        environment=_variables(made, home),
        bounds=bounds,
    )
    start = [str(made.python), "-s", "-B", "-c", START, str(CHILD.parent)]
    try:
        with Box([*words, *start], "debug-gym", bounds) as box:
            if bare:
                box.folder = str(bare / "testbed")
            yield box
    finally:
        if bare:
            shutil.rmtree(bare, ignore_errors=True)


def _variables(made: Made, home: str) -> dict[str, str]:
    """The same for every machine, as far as that can be."""
    return {
        "PATH": f"{made.folder / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "TERM": "dumb",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
