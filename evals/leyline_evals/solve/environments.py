"""Python environments of benchmarks that cannot share ours: `leyline eval setup NAME`.

Each lies in the user's data folder and is spoken to over a process boundary.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from leyline_evals.solve.errors import EvalError

__all__ = ["ENVIRONMENTS", "Environment", "Made", "find", "make"]

VARIABLE = "LEYLINE_EVAL_PYTHON"
STAMP = "leyline.json"
FIT = """\
import sys, venv, ensurepip
low, high = eval(sys.argv[1])
sys.exit(not low <= sys.version_info[:2] < high)
"""
ABOUT = """\
import importlib.metadata, json, platform, sys
import {module}
names = [name for name in sys.argv[1].split(",") if name]
print(json.dumps({{
    "python": platform.python_version(),
    "base": sys.base_prefix,
    "versions": {{name: importlib.metadata.version(name) for name in names}},
}}))
"""


@dataclass(frozen=True)
class Environment:
    """What an environment holds.

    Attributes:
        low, high: its Python is at least the first and below the second.
        requirements: for pip, their dependencies come with them.
        bare: for pip, without their dependencies.
        told: packages whose versions are told in a run.
        module: what must be importable in it.
        why: it has to be this Python.
    """

    low: tuple[int, int]
    high: tuple[int, int]
    requirements: tuple[str, ...]
    told: tuple[str, ...]
    module: str
    bare: tuple[str, ...] = ()
    why: str = ""


ENVIRONMENTS: dict[str, Environment] = {
    # debug-gym 1.3.0 requires 18 packages in one version each, GPU libraries among them. What is
    # here imports none of those: the child process steps past the package files that would.
    "debug-gym": Environment(
        low=(3, 12),
        high=(3, 13),
        bare=("debug-gym==1.3.0",),
        requirements=(
            "gitignore_parser==0.1.12",
            "jinja2==3.1.6",
            "numpy>=2,<3",
            "pytest==8.3.5",
            "pyyaml==6.0.2",
            "requests>=2.32",
            "rich==14.0.0",
            "tenacity==9.1.2",
            "tqdm>=4.66",
        ),
        told=("debug-gym", "pytest"),
        module="debug_gym, gitignore_parser, jinja2, numpy, pytest, rich, tenacity, yaml",
        why="debug-gym's pdb tool does not work on 3.13",
    ),
    # pytest runs the tests of instances that need no image.
    "swe-bench": Environment(
        low=(3, 11),
        high=(3, 14),
        requirements=("mini-swe-agent==2.4.6", "pytest>=8.3", "swebench==5.0.2"),
        told=("mini-swe-agent", "swebench", "pytest"),
        module="pytest, swebench.harness.grading",  # mini-swe-agent greets, and configures itself.
    ),
}


@dataclass(frozen=True)
class Made:
    """An environment that is there.

    Attributes:
        folder: where.
        python: its interpreter.
        base: the folder of the Python it was made with.
        versions: of Python and of what is told, by name.
    """

    folder: Path
    python: Path
    base: Path
    versions: Mapping[str, str]


def find(name: str) -> Made:
    """The environment of a benchmark.

    Raises:
        EvalError: it has not been made, or not by this release; the error names the command.
    """
    folder, again = _folder(name), f"run `leyline eval setup {name}`"
    try:
        stamp = json.loads((folder / STAMP).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EvalError(
            f"{name} has no environment yet: run `leyline eval setup {name}`"
        ) from error
    made = _made(folder, stamp)
    if stamp.get("digest") != _digest(ENVIRONMENTS[name]) or not made.python.exists():
        raise EvalError(f"{name}'s environment is out of date: {again}")
    return made


def make(name: str, say: Callable[[str], None] = print, *, again: bool = False) -> Made:
    """Make the environment of a benchmark, unless it is there and up to date.

    `LEYLINE_EVAL_PYTHON` names the interpreter; else it is looked for on PATH and under pyenv.
    uv installs where there is one, and pip otherwise.

    Args:
        name: of the benchmark.
        say: hears what is done, a line each.
        again: make it from nothing in any case.

    Raises:
        EvalError: no such benchmark, no Python that fits, or something cannot be installed.
    """
    if name not in ENVIRONMENTS:
        raise EvalError(f"nothing to set up for {name!r}; there are {', '.join(ENVIRONMENTS)}")
    if not again:
        try:
            made = find(name)
        except EvalError:
            pass
        else:
            say(f"{made.folder} is up to date")
            return made
    environment = ENVIRONMENTS[name]
    python = _python(environment)
    folder = _folder(name)
    say(f"making {folder} with {python}")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _install(environment, python, folder, say)
        made = _looked_at(environment, folder)
    except OSError as error:
        raise EvalError(f"{folder} cannot be made: {error}") from error
    say(f"{folder} is ready: {', '.join(f'{k} {v}' for k, v in made.versions.items())}")
    return made


def _install(
    environment: Environment, python: str, folder: Path, say: Callable[[str], None]
) -> None:
    uv = os.environ.get("UV") or shutil.which(str(Path(sys.executable).with_name("uv")))
    uv = uv or shutil.which("uv")
    inside = folder / "bin" / "python"
    if uv:
        _run([uv, "venv", "--quiet", "--python", python, str(folder)])
        install = [uv, "pip", "install", "--quiet", "--python", str(inside)]
    else:
        _run([python, "-m", "venv", str(folder)])
        install = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for options, names in (("--no-deps", environment.bare), ("", environment.requirements)):
        if names:
            say(f"installing {' '.join(names)}")
            _run([*install, *([options] if options else []), *names])


def _looked_at(environment: Environment, folder: Path) -> Made:
    """The environment, tried; its stamp is written last."""
    script = ABOUT.format(module=environment.module)
    words = [str(folder / "bin" / "python"), "-c", script, ",".join(environment.told)]
    stamp = {**json.loads(_run(words)), "digest": _digest(environment)}
    (folder / STAMP).write_text(json.dumps(stamp), "utf-8")
    return _made(folder, stamp)


def _made(folder: Path, stamp: Mapping[str, object]) -> Made:
    told = stamp.get("versions")
    versions = {"python": stamp.get("python"), **(told if isinstance(told, dict) else {})}
    return Made(
        folder=folder,
        python=folder / "bin" / "python",
        base=Path(str(stamp.get("base"))),
        versions={key: str(value) for key, value in versions.items()},
    )


def _folder(name: str) -> Path:
    from leyline_agent.serving.models.embedded import data_dir

    return data_dir() / "environments" / name


def _digest(environment: Environment) -> str:
    return hashlib.sha256(repr(environment).encode()).hexdigest()


def _run(words: Sequence[str]) -> str:
    """What a command prints.

    Raises:
        EvalError: it fails, with the end of what it said.
    """
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        said = (made.stderr or made.stdout).strip()[-1500:]
        raise EvalError(f"{' '.join(words[:4])} ... failed ({made.returncode}):\n{said}")
    return made.stdout


def _python(environment: Environment) -> str:
    """A Python that fits."""
    if named := os.environ.get(VARIABLE):
        if shutil.which(named) is None:
            raise EvalError(f"{VARIABLE}={named}: there is no such program")
        if not _fits(named, environment):
            raise EvalError(f"{VARIABLE}={named} is no Python {_wanted(environment)}")
        return named
    for candidate in _candidates():
        if _fits(candidate, environment):
            return candidate
    raise EvalError(
        f"no Python {_wanted(environment)} found, neither on PATH nor under pyenv. Install one, "
        f"with its venv module, or name it: {VARIABLE}=/path/to/python"
    )


def _wanted(environment: Environment) -> str:
    (major, low), (_, high) = environment.low, environment.high
    versions = f"{major}.{low}" if high == low + 1 else f"{major}.{low} to {major}.{high - 1}"
    return f"{versions} with venv and ensurepip" + (
        f" ({environment.why})" if environment.why else ""
    )


def _candidates() -> Iterator[str]:
    """Interpreters on PATH, then those that pyenv keeps."""
    for name in ("python3", *(f"python3.{minor}" for minor in range(11, 16))):
        if found := shutil.which(name):
            yield found
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(root.glob("versions/*/bin/python3")))


def _fits(python: str, environment: Environment) -> bool:
    versions = repr((environment.low, environment.high))
    try:
        tried = subprocess.run([python, "-c", FIT, versions], capture_output=True, check=False)
    except OSError:
        return False
    return tried.returncode == 0
