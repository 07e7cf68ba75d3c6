"""Lets SGLang be imported beside a CPU build of torch: imported first, by a .pth file.

Its multimodal code imports packages whose builds want CUDA; nothing of them runs for a text model.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from typing import Any
from unittest.mock import MagicMock

STUBBED = {"torchvision", "torchaudio", "IPython"}
ABSENT = ("torchcodec",)  # SGLang does without


class Stubs(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds any module below the stubbed packages."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname.partition(".")[0] not in STUBBED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__spec__, module.__name__ = spec, spec.name
        module.__path__, module.__version__ = [], "0.0"
        return module

    def exec_module(self, module: Any) -> None:
        pass


sys.meta_path.insert(0, Stubs())
for name in ABSENT:
    sys.modules[name] = None  # type: ignore[assignment]
