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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minisweagent.environments.docker import DockerEnvironment
from minisweagent.environments.extra.bubblewrap import BubblewrapEnvironment

__all__ = ["Box", "Container", "DiskFull"]

CHECKOUT = "/testbed"
LOOK_S = 0.25


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
        with process:
            kept = _Kept(self._told["output"])
            why = self._watch(process, kept, began + seconds)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        spent = time.monotonic() - began
        if why == "disk":
            raise DiskFull(f"the agent wrote more than {self._told['disk'] >> 20} MiB")
        told = {
            "": "",
            "time": f"the command timed out after {seconds:g} s and was killed",
            "processes": f"the command was killed: more than {self._told['processes']} processes",
        }[why]
        code = -1 if why else process.returncode
        extra = {"seconds": spent}
        return {"output": kept.text(), "returncode": code, "exception_info": told, "extra": extra}

    def _watch(self, process: subprocess.Popen[bytes], kept: _Kept, deadline: float) -> str:
        """Read what it prints until it ends; else the limit that ends it."""
        assert process.stdout is not None
        pipe, looked = process.stdout, 0.0
        is_open = True
        while True:
            if is_open and select.select([pipe], [], [], LOOK_S)[0]:
                read = os.read(pipe.fileno(), 1 << 16)
                kept.take(read)
                is_open = bool(read)
            elif not is_open:
                time.sleep(0.01)
            now = time.monotonic()
            if not is_open and process.poll() is not None:
                return "disk" if self._is_full() else ""
            if now > deadline:
                return "time"
            if now - looked > LOOK_S:
                looked = now
                if _descendants(process.pid) > self._told["processes"]:
                    return "processes"
                if self._is_full():
                    return "disk"

    def _is_full(self) -> bool:
        """Whether the checkout is too large; measured only where the disk has lost as much."""
        limit: int = self._told["disk"]
        return self._free - _free(self._checkout) > limit // 2 and _size(self._checkout) > limit

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *error: object) -> None:
        self.cleanup()


class Container(DockerEnvironment):
    """mini-swe-agent's container of an instance's image, without a network."""

    def __init__(self, image: str, seconds: float) -> None:
        bounds = ["--rm", "--network", "none", "--pids-limit", "512"]
        super().__init__(image=image, cwd=CHECKOUT, timeout=int(seconds) or 1, run_args=bounds)

    def run(self, command: str, seconds: float, given: str = "") -> dict[str, Any]:
        """Run a command; `given` is not."""
        output: dict[str, Any] = self.execute({"command": command}, timeout=int(seconds) or 1)
        return output

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *error: object) -> None:
        self.cleanup()


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
