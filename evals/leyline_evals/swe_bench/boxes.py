"""Where an episode's commands run: a box of bubblewrap each, or one Docker container.

Runs beside `child.py`, with mini-swe-agent and without Leyline. Both are its environments; a box
also holds what theirs does not: output that never ends, processes, the disk.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minisweagent.environments.docker import DockerEnvironment
from minisweagent.environments.extra.bubblewrap import BubblewrapEnvironment

__all__ = ["Box", "Container", "DiskFull"]

CHECKOUT = "/testbed"
LATE = "late"
LOOK_S, GRACE_S, PULL_S = 0.25, 10.0, 1800
TIMED_OUT = (124, 137)  # How `timeout` ends.


class DiskFull(Exception):
    """The agent wrote more than it may; the episode cannot go on."""


class Box(BubblewrapEnvironment):
    """mini-swe-agent's bubblewrap environment, around a checkout that stands at /testbed.

    Args:
        told: `argv` up to the command, with the checkout bound and all else read-only; the
            `checkout`'s folder outside; the most `processes`; and bytes of `disk` and `output`.
        seconds: the most a command of the agent may take.
    """

    def __init__(self, told: dict[str, Any], seconds: float) -> None:
        super().__init__(cwd=CHECKOUT, executable=told["argv"][0], wrapper_args=told["argv"][1:])
        self._told = told
        self._seconds = seconds
        self._checkout = Path(told["checkout"])
        self._free = _free(self._checkout)

    def execute(
        self, action: dict[str, Any], cwd: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A command of the agent, as the base class has it."""
        output = self.run(action.get("command", ""), timeout or self._seconds)
        self._check_finished(output)
        return output

    def run(self, command: str, seconds: float, given: str = "") -> dict[str, Any]:
        """Run a command with `given` on its standard input; at most so many seconds.

        Raises:
            DiskFull: it, or what ran before it, wrote too much.
        """
        argv = [self.config.executable, *self.config.wrapper_args, "bash", "-c", command]
        output = _bounded(argv, seconds, self._told["output"], given, self._exceeded)
        if self._is_full():
            raise DiskFull(f"the agent wrote more than {self._told['disk'] >> 20} MiB")
        return output

    def _exceeded(self, pid: int) -> str:
        """What a command takes too much of."""
        if _descendants(pid) > self._told["processes"]:
            return f"more than {self._told['processes']} processes"
        return "the disk is full" if self._is_full() else ""

    def _is_full(self) -> bool:
        """Whether the checkout is too large; measured only where the disk has lost as much."""
        limit: int = self._told["disk"]
        return self._free - _free(self._checkout) > limit // 2 and _size(self._checkout) > limit

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *error: object) -> None:
        self.cleanup()


class Container(DockerEnvironment):
    """mini-swe-agent's container of an instance's image, without a network.

    Args:
        image: the instance's.
        seconds: the most a command of the agent may take.
        output: the most bytes of what it prints that are kept.
    """

    def __init__(self, image: str, seconds: float, output: int = 8 << 20) -> None:
        bounds = ["--rm", "--network", "none", "--pids-limit", "512"]
        super().__init__(image=image, cwd=CHECKOUT, run_args=bounds, pull_timeout=PULL_S)
        self._seconds = seconds
        self._output = output

    def execute(
        self, action: dict[str, Any], cwd: str = "", *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A command of the agent, as the base class has it."""
        output = self.run(action.get("command", ""), timeout or self._seconds)
        self._check_finished(output)
        return output

    def run(self, command: str, seconds: float) -> dict[str, Any]:
        """Run a command, at most so many seconds; in the container too it is then over."""
        inside = ["timeout", "--kill-after", "1", f"{seconds:g}", *self.config.interpreter, command]
        argv = [self.config.executable, "exec", "-w", CHECKOUT, str(self.container_id), *inside]
        output = _bounded(argv, seconds + GRACE_S, self._output)
        if output["returncode"] in TIMED_OUT and output["extra"]["seconds"] >= seconds:
            output["exception_info"] = _timed_out(seconds)
        return output

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *error: object) -> None:
        self.cleanup()


def _bounded(
    argv: list[str],
    seconds: float,
    most: int,
    given: str = "",
    exceeded: Callable[[int], str] = lambda pid: "",
) -> dict[str, Any]:
    """What a command printed, as mini-swe-agent's environments tell it.

    Args:
        argv: the command.
        seconds: it is killed then.
        most: bytes of its output that are kept, half from either end.
        given: on its standard input.
        exceeded: what it takes too much of, asked now and then with its process id.
    """
    began = time.monotonic()
    with tempfile.TemporaryFile() as source:
        source.write(given.encode())
        source.seek(0)
        process = subprocess.Popen(
            argv,
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    kept = _Kept(most)
    with process:
        why = _watch(process, kept, began + seconds, exceeded)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    told = ""
    if why:
        told = _timed_out(seconds) if why == LATE else f"the command was killed: {why}"
    spent = time.monotonic() - began
    code = -1 if why else process.returncode
    extra = {"seconds": spent}
    return {"output": kept.text(), "returncode": code, "exception_info": told, "extra": extra}


def _watch(
    process: subprocess.Popen[bytes],
    kept: _Kept,
    deadline: float,
    exceeded: Callable[[int], str],
) -> str:
    """Read what a process prints until it ends; else why it must."""
    assert process.stdout is not None
    pipe, looked, is_open = process.stdout, 0.0, True
    while is_open or process.poll() is None:
        if not is_open:
            time.sleep(0.01)
        elif select.select([pipe], [], [], LOOK_S)[0]:
            read = os.read(pipe.fileno(), 1 << 16)
            kept.take(read)
            is_open = bool(read)
        now = time.monotonic()
        if now > deadline:
            return LATE
        if now - looked > LOOK_S:
            looked = now
            if why := exceeded(process.pid):
                return why
    return ""


def _timed_out(seconds: float) -> str:
    return f"the command timed out after {seconds:g} s and was killed"


class _Kept:
    """The head and the tail of a stream."""

    def __init__(self, most: int) -> None:
        self._half = most // 2
        self._head, self._tail = bytearray(), bytearray()
        self._lost = 0

    def take(self, read: bytes) -> None:
        """The next bytes."""
        room = self._half - len(self._head)
        self._head += read[:room]
        self._tail += read[room:] if room > 0 else read
        if len(self._tail) > 2 * self._half:
            self._lost += len(self._tail) - self._half
            del self._tail[: -self._half]

    def text(self) -> str:
        """What is kept, and a line of how much is not."""
        left = f"\n[{self._lost} bytes left out]\n".encode() if self._lost else b""
        return (bytes(self._head) + left + bytes(self._tail)).decode("utf-8", errors="replace")


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bfree * found.f_frsize


def _size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in _files(folder))


def _files(folder: Path) -> Iterator[Path]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_symlink() or path.exists():
                yield path


def _descendants(pid: int) -> int:
    """How many processes a process has below it; its box's, whatever they call their parent."""
    children = defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue  # It has ended.
            children[parent].append(int(entry.name))
    found, waiting = 0, [pid]
    while waiting:
        below = children[waiting.pop()]
        found += len(below)
        waiting += below
    return found
