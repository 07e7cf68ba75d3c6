"""Commands: with a time limit that holds for all they start, and an end to what they print."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Done", "cut", "run"]

KEPT = 1 << 20  # bytes of a command's output


class Done(NamedTuple):
    """A command that is over.

    Attributes:
        status: its exit status; None when it was not over in time.
        output: what it printed, its errors among it, in the order of time.
    """

    status: int | None
    output: str


def run(words: Sequence[str], folder: str, environment: Mapping[str, str], seconds: float) -> Done:
    """Run a command; when time is over, all of its process group are killed.

    What it leaves running in the background is no longer waited for once it is over itself.
    """
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, in_time = _heard(process, time.monotonic() + seconds)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    return Done(process.returncode if in_time else None, output)


def _heard(process: subprocess.Popen[bytes], deadline: float) -> tuple[str, bool]:
    """What a process prints until it is over, and whether that was in time."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    head, tail, size = bytearray(), bytearray(), 0
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if (left := deadline - time.monotonic()) <= 0:
                return _joined(head, tail, size), False
            over = process.poll() is not None
            if not selector.select(0 if over else min(left, 0.1)):
                if over:
                    return _joined(head, tail, size), True
                continue
            some = os.read(stream, 1 << 16)
            if not some:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, deadline - time.monotonic()))
                return _joined(head, tail, size), process.poll() is not None
            size += len(some)
            room = KEPT // 2 - len(head)
            head += some[:room]
            tail = (tail + some[max(room, 0) :])[-KEPT // 2 :]


def _joined(head: bytearray, tail: bytearray, size: int) -> str:
    missing = size - len(head) - len(tail)
    gap = f"\n[{missing} bytes left out]\n".encode() if missing else b""
    return (bytes(head) + gap + bytes(tail)).decode(errors="replace")


def cut(text: str, most: int) -> str:
    """A text without its middle, when it is long; said so there."""
    if len(text) <= most:
        return text
    head, tail = most - most // 2, most // 2
    return f"{text[:head]}\n[{len(text) - most} characters left out]\n{text[len(text) - tail :]}"
