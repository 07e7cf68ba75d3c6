"""debug-gym without its package files that import what only other benchmarks need.

In their `__init__` the packages of its environments, terminals, models and agents import Docker,
Kubernetes, Azure, transformers and two releases of swebench. Empty packages in their place leave
the modules below them as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

__all__ = ["enter"]

PACKAGES = ("gym.envs", "gym.terminals", "llms", "agents")


def enter() -> None:
    """Put the empty packages in place, before anything else of debug-gym is imported."""
    import debug_gym

    root = Path(debug_gym.__file__).parent
    for name in PACKAGES:
        package = ModuleType(f"debug_gym.{name}")
        package.__path__ = [str(root.joinpath(*name.split(".")))]
        sys.modules.setdefault(package.__name__, package)
