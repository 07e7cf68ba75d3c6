"""Where a model's commands run: bubblewrap, Docker, or bare, each as the beginning of a command.

In a sandbox there is no network; of the machine there are its programs, read-only, and what the
caller names; what may be written is in memory, of a size; processes are a namespace of their own
and end with the one that began them. The rights of its user are the most a process has there.
Where Leyline's evaluations are installed among those programs they are empty folders: they hold
hidden tests and the patches that are asked for.

Sizes of files and the memory of one process are held by the kernel's limits. Of the number of
processes that is true only for users but root; `Child` counts them, and their memory, besides.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from leyline_evals.solve.errors import EvalError

__all__ = ["SANDBOXES", "Bounds", "Kind", "bubblewrap", "command", "docker", "limited", "require"]

Kind = Literal["bubblewrap", "docker", "none"]
SANDBOXES: tuple[Kind, ...] = ("bubblewrap", "docker", "none")

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# What programs of the system read of /etc; users, keys and configuration stay out.
ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
# Where packages lie below a folder of programs or of a Python, and environments in one.
PACKAGES = ("", "local/", "envs/*/", "local/envs/*/")
OURS = Path(__file__).resolve().parents[1]
USER = 1000
IMAGE = "debian:stable-slim"
INSTALL = (
    "Debian, Ubuntu: apt-get install bubblewrap; Fedora: dnf install bubblewrap; "
    "Arch: pacman -S bubblewrap"
)


@dataclass(frozen=True)
class Bounds:
    """What all processes of a sandbox may take.

    Attributes:
        memory: bytes, of one process and of all together; files in memory come on top.
        disk: bytes of each scratch folder, and of one file.
        processes: at once.
    """

    memory: int = 3 << 30
    disk: int = 512 << 20
    processes: int = 128


def command(
    kind: Kind,
    read_only: Sequence[Path],
    scratch: Sequence[str],
    environment: Mapping[str, str],
    bounds: Bounds,
) -> list[str]:
    """The beginning of a command that is then run in a sandbox.

    Args:
        kind: which; `none` only limits what it starts, which sees the machine and the network.
        read_only: files and folders of the machine that are there, besides the system's programs.
        scratch: paths that are folders in memory there; the first is the working directory.
        environment: all variables; `PATH` should be one.
        bounds: what it may take.

    Raises:
        EvalError: this machine has no such sandbox; the error says what to install.
    """
    require(kind)
    if kind == "bubblewrap":
        return bubblewrap(read_only, scratch, environment, bounds)
    if kind == "docker":
        return docker(read_only, scratch, environment, bounds)
    given = [f"{name}={value}" for name, value in environment.items()]
    return ["env", "-i", *given, *limited(bounds, alone=False)]


def bubblewrap(
    read_only: Sequence[Path],
    scratch: Sequence[str],
    environment: Mapping[str, str],
    bounds: Bounds,
    writable: Mapping[Path, str] | None = None,
) -> list[str]:
    """As `command`, in a bubblewrap.

    `writable` are folders of the machine, changed in place, and their paths in the sandbox; the
    first of them is the working directory.
    """
    places = writable or {}
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--uid", str(USER), "--gid", str(USER), "--hostname", "sandbox", "--clearenv"]
    for name, value in environment.items():
        words += ["--setenv", name, value]
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            words += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            words += ["--ro-bind", str(path), str(path)]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for folder in ("/dev/shm", *scratch):
        words += ["--size", str(bounds.disk), "--tmpfs", folder]
    # Later than scratch: they may lie below it.
    words += _shown([*map(Path, ETC), *read_only])
    for path, place in places.items():
        words += ["--bind", str(path), place]
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    words += ["--chdir", next(iter(places.values()), scratch[0])]
    return [*words, *limited(bounds)]


def _shown(read_only: Sequence[Path]) -> list[str]:
    """What binds these paths, with nothing in the folders to cover but what is named in them."""
    covers = _covers(read_only)
    outside: list[str] = []
    inside: list[str] = []
    for path in read_only:
        if path.exists():
            words = inside if any(map(path.is_relative_to, covers)) else outside
            words += ["--ro-bind", str(path), str(path)]
    empty = [word for path in covers for word in ("--size", "1048576", "--tmpfs", str(path))]
    sealed = [word for path in covers for word in ("--remount-ro", str(path))]
    return [*outside, *empty, *inside, *sealed]


def _covers(read_only: Sequence[Path]) -> list[Path]:
    """Folders of `leyline_evals` below what is there of the machine: what no model may read."""
    roots = [path for path in map(Path, SYSTEM) if path.is_dir() and not path.is_symlink()]
    found = set()
    for root in (*roots, *(path for path in read_only if path.is_dir())):
        real = root.resolve()
        below = (f"{place}lib*/python3*/*-packages/leyline_evals" for place in PACKAGES)
        ours = (path for pattern in below for path in real.glob(pattern) if path.is_dir())
        for path in {OURS, *(path.resolve() for path in ours)}:
            if path != real and path.is_relative_to(real):
                found.add(root / path.relative_to(real))
    return sorted(found)


def docker(
    read_only: Sequence[Path],
    scratch: Sequence[str],
    environment: Mapping[str, str],
    bounds: Bounds,
    image: str = IMAGE,
) -> list[str]:
    """As `command`, in a container. Of the image nothing is used but its empty folders."""
    words = ["docker", "run", "--rm", "--interactive", "--init", "--network", "none"]
    words += ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    words += ["--user", f"{USER}:{USER}", "--pids-limit", str(bounds.processes)]
    words += ["--memory", str(bounds.memory), "--memory-swap", str(bounds.memory)]
    for name, value in environment.items():
        words += ["--env", f"{name}={value}"]
    for path in (*map(Path, (*SYSTEM, *ETC)), *read_only):
        if path.exists():
            words += ["--volume", f"{path.resolve()}:{path}:ro"]
    for cover in _covers(read_only):  # Docker mounts what lies below later.
        words += ["--tmpfs", f"{cover}:size=1m,mode=755"]
    for folder in scratch:
        options = f"rw,exec,size={bounds.disk},uid={USER},gid={USER}"
        words += ["--tmpfs", f"{folder}:{options}"]
    return [*words, "--workdir", scratch[0], image, *limited(bounds, alone=False)]


def limited(bounds: Bounds, *, alone: bool = True) -> list[str]:
    """The beginning of a command whose processes are limited; no core dumps.

    Args:
        bounds: how.
        alone: whether the user has no processes but these, so that they can be counted.
    """
    words = ["prlimit", "--core=0", f"--as={bounds.memory}", f"--fsize={bounds.disk}"]
    return [*words, *([f"--nproc={bounds.processes}"] if alone else []), "--"]


def require(kind: Kind) -> None:
    """Check that this machine has a sandbox.

    Raises:
        EvalError: it has not; the error says what to install, or what else there is.
    """
    problem = {"bubblewrap": _bubblewrap_problem, "docker": _docker_problem}.get(kind)
    if problem is not None and (why := problem(os.environ.get("PATH", ""))):
        raise EvalError(why)


@cache
def _bubblewrap_problem(path: str) -> str:
    if shutil.which("bwrap", path=path) is None:
        return (
            "the model's commands run in a bubblewrap, which is not installed "
            f"({INSTALL}). Or --sandbox docker; or --sandbox none, which shields nothing"
        )
    tried = _tried("bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true")
    if not tried:
        return ""
    return (
        f"bubblewrap may not make namespaces here: {tried}. A container has to be started with "
        "--security-opt seccomp=unconfined --security-opt apparmor=unconfined; Ubuntu 24.04 needs "
        "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`. Or --sandbox docker; or "
        "--sandbox none, which shields nothing"
    )


@cache
def _docker_problem(path: str) -> str:
    if shutil.which("docker", path=path) is None:
        return "--sandbox docker needs the docker command, which is not installed"
    tried = _tried("docker", "version", "--format", "{{.Server.Version}}")
    return f"--sandbox docker needs a Docker daemon: {tried}" if tried else ""


def _tried(*words: str) -> str:
    """What a command says when it fails; "" when it works."""
    try:
        made = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = [line.strip() for line in made.stderr.splitlines() if line.strip()]
    return "" if made.returncode == 0 else (lines or [f"exit status {made.returncode}"])[-1]
