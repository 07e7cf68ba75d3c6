"""What `--model scripted` says: the gold patch, found the long way, so that policies have work."""

from __future__ import annotations

import re

from leyline_agent.testing.model import Reply
from leyline_evals.swe_bench.instances import Instance
from leyline_evals.swe_bench.talk import Speech

__all__ = ["gold"]

_CHANGED = re.compile(r"^diff --git a/(\S+) b/", re.MULTILINE)


def gold(instance: Instance, speech: Speech) -> list[Reply]:
    """Look at the repository and at what is wrong, mend it, look again, submit."""
    files = _CHANGED.findall(instance.patch)
    mark = "END_OF_PATCH"
    looks = [f"cat {path}" for path in files]
    tests = "python -m pytest -q -p no:cacheprovider 2>&1 | tail -n 30"
    mend = f"git apply - <<'{mark}'\n{instance.patch}{mark}"
    return speech.say(["git ls-files", *looks, tests, mend, *looks, tests, "submit"])
