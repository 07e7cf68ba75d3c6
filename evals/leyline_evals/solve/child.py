"""A process that is spoken to in lines of JSON over its standard streams, watched while it lives.

One thread reads what it says, another what it complains about, a third counts its processes and
their memory. Whatever happens to it, the parent gets an answer, a timeout, or how it died; and
when the parent is done, no process of it is left.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.sandbox import Bounds

__all__ = ["Child", "ChildDied", "ChildSilent"]

LONGEST = 64 << 20  # bytes of a line
COMPLAINTS = 64 << 10  # bytes of standard error that are kept
WATCHED = 0.25  # seconds between two looks at the processes


class ChildDied(EvalError):
    """The process is over before it should be; the message says what ended it."""


class ChildSilent(EvalError):
    """The process says nothing; it has been ended."""


class Child:
    """A process. As a context manager it is over at the end.

    Args:
        words: the command.
        name: for what is told of it.
        bounds: what all its processes may take; None not to watch them.
    """

    def __init__(self, words: Sequence[str], name: str, bounds: Bounds | None = None) -> None:
        self.name = name
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._said: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
        self._complaints: deque[bytes] = deque()
        self._exceeded = ""
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=target, daemon=True)
            for target in (self._listen, self._complain, *([self._watch] if bounds else ()))
        ]
        self._bounds = bounds or Bounds()
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Say something.

        Raises:
            ChildDied: it cannot hear any more.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._died() from error

    def receive(self, seconds: float) -> dict[str, Any]:
        """What it says next.

        Raises:
            ChildSilent: nothing, for so long.
            ChildDied: it is over, or talks nonsense.
        """
        try:
            line = self._said.get(timeout=seconds)
        except queue.Empty as error:
            self.close()
            raise ChildSilent(
                f"{self.name} said nothing for {seconds:g} s and was ended{self._last_words()}"
            ) from error
        if line is None:
            raise self._died()
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            self.close()
            raise ChildDied(f"{self.name} does not speak JSON and was ended: {line[:200]!r}")
        return message

    def close(self) -> None:
        """End it, and all that it started. Again and again, if you like."""
        self._over.set()
        _end(self._process)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.close()

    def _died(self) -> ChildDied:
        """How it ended, told once it has."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            status = 0
        exceeded = self._exceeded
        self.close()
        if exceeded:
            return ChildDied(f"{self.name} was ended: {exceeded}")
        return ChildDied(f"{self.name} died ({_how(status)}){self._last_words()}")

    def _last_words(self) -> str:
        text = b"".join(self._complaints).decode(errors="replace").strip()
        return f"; it said: {text[-1000:]}" if text else ""

    def _listen(self) -> None:
        """Lines as they come, until the end. A full queue holds the process up."""
        assert self._process.stdout is not None
        with suppress(OSError, ValueError):
            while line := self._process.stdout.readline(LONGEST):
                if not line.endswith(b"\n"):
                    break
                self._put(line)
        self._put(None)

    def _put(self, line: bytes | None) -> None:
        while not self._over.is_set():
            with suppress(queue.Full):
                self._said.put(line, timeout=1.0)
                return

    def _complain(self) -> None:
        """Keep the end of standard error."""
        assert self._process.stderr is not None
        kept = 0
        with suppress(OSError, ValueError):
            while some := self._process.stderr.read1(4096):  # type: ignore[attr-defined]
                self._complaints.append(some)
                kept += len(some)
                while kept > COMPLAINTS:
                    kept -= len(self._complaints.popleft())

    def _watch(self) -> None:
        """End it when it takes more than its bounds."""
        bounds = self._bounds
        while not self._over.wait(WATCHED) and self._process.poll() is None:
            count = memory = 0
            for pid in _descendants(self._process.pid):
                count += 1
                memory += _resident(pid)
                if count > bounds.processes or memory > bounds.memory:
                    break
            else:
                continue
            if count > bounds.processes:
                self._exceeded = f"it had more than {bounds.processes} processes at once"
            else:
                self._exceeded = f"its processes took more than {bounds.memory >> 20} MiB of memory"
            _end(self._process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and what it started. In a sandbox the second follows from the first."""
    for _ in range(20):
        left = list(_descendants(process.pid)) if process.poll() is None else []
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.01)
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=10)


def _descendants(root: int) -> Iterator[int]:
    """The processes below one, nearest first."""
    waiting = deque([root])
    while waiting:
        pid = waiting.popleft()
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                children = [int(word) for word in (task / "children").read_text().split()]
                yield from children
                waiting.extend(children)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has; 0 when it is gone."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _how(status: int) -> str:
    """An exit status in words; bubblewrap passes signals on as 128 and their number."""
    number = -status if status < 0 else status - 128
    with suppress(ValueError):
        if status < 0 or status > 128:
            return f"signal {number}, {signal.Signals(number).name}"
    return f"exit status {status}"
