"""A line at the bottom of the terminal that says how the running sessions do.

    with leyline.live():
        run_agent(task)

or LEYLINE_LIVE=1 in the environment, or `observers=[LiveLine()]` for some sessions only. The line
stands outside the part of the screen that scrolls, so that whatever the program prints, words of a
stream and the output of other processes included, comes out as it does without it.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from leyline_agent import observer

if TYPE_CHECKING:
    from rich.console import Console

    from leyline_agent.branch import Snapshot
    from leyline_agent.receipt import Receipt
    from leyline_agent.state import Gone
    from leyline_agent.turn import Prepared

__all__ = ["LiveLine", "Tally", "live", "live_as_asked"]

MIN_ROWS = 4

# What moves the cursor puts it back: only the program knows where it should be.
_SAVE, _RESTORE, _INDEX, _UP, _CLEAR = "\x1b7", "\x1b8", "\x1bD", "\x1b[A", "\x1b[2K"


@dataclass
class Tally:
    """What the line counts.

    Attributes:
        sessions: the ids of the sessions seen.
        turns, failed: turns that were answered, and that failed.
        view, history: tokens of the last prompt, and what it would have been without edits.
        saved: tokens that were not sent for being edited away, summed over all turns.
        prompt, reused: tokens the engine counted, summed over all turns.
        edits: how many, by policy.
        recalls, repeated: outputs that a model asked to see again; and more than once.
        ttft_ms: the engine's last time to the first token, where it tells it.
    """

    sessions: set[str] = field(default_factory=set)
    turns: int = 0
    failed: int = 0
    view: int = 0
    history: int = 0
    saved: int = 0
    prompt: int = 0
    reused: int = 0
    edits: Counter[str] = field(default_factory=Counter)
    recalls: int = 0
    repeated: int = 0
    ttft_ms: float | None = None

    def add(self, prepared: Prepared, made: Snapshot, receipt: Receipt) -> None:
        """Count a call that was answered; one that the harness did not see is no turn.

        Of edits ahead of a call only the edits and what they computed count.
        """
        self.edits.update(accepted.edit.policy for accepted in prepared.proposal.accepted)
        if prepared.asked is None:
            self.prompt += receipt.compute
            return
        seen = prepared.trajectory
        exchange = made.exchange
        self.turns += exchange is None or len(made.history) > len(prepared.draft.history)
        for one in exchange.recalled if exchange else ():
            self.recalls += one.found
            self.repeated += one.found and one.again
        self.view = receipt.prompt or seen.tokens(prepared.sent)
        self.history = max(seen.original.tokens(), self.view) if made.view.edited else self.view
        self.saved += self.history - self.view
        self.prompt += receipt.prompt
        self.reused += receipt.reused
        self.ttft_ms = self.ttft_ms if receipt.ttft_ms is None else receipt.ttft_ms

    def parts(self) -> Iterator[str]:
        """What the line says, the most important first."""
        yield _number(self.turns, "turn") + (f", {self.failed:,} failed" if self.failed else "")
        if len(self.sessions) > 1:
            yield _number(len(self.sessions), "session")
        if self.turns:
            yield f"view {self.view:,} of {self.history:,} tokens"
        if self.saved:
            yield f"saved {self.saved:,}"
        if self.prompt:
            yield f"reused {self.reused / self.prompt:.0%}"
        if self.ttft_ms is not None:
            yield f"first token {self.ttft_ms:,.0f} ms"
        if self.edits:
            by = ", ".join(f"{name} {count:,}" for name, count in self.edits.most_common())
            yield f"{_number(self.edits.total(), 'edit')}: {by}"
        if self.recalls:
            again = f", {self.repeated:,} again" if self.repeated else ""
            yield _number(self.recalls, "recall") + again


class LiveLine:
    """An observer that keeps a line at the bottom of the terminal. Thread-safe.

    Where there is no terminal, or the environment has `CI`, nothing is written. Close it when the
    sessions are done; it closes itself when the process ends.

    Args:
        file: the terminal; standard output where it is one, else standard error.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self.tally = Tally()
        self._console = _console(file)
        self._lock = threading.Lock()
        self._size: os.terminal_size | None = None
        if self._console is not None:
            atexit.register(_close, weakref.ref(self))

    def begun(self, prepared: Prepared) -> None:
        """A call is about to be made."""
        with self._lock:
            self.tally.sessions.add(prepared.commit.session)
            self._draw()

    def committed(self, prepared: Prepared, made: Snapshot, gone: Gone, receipt: Receipt) -> None:
        """The call was answered."""
        with self._lock:
            self.tally.add(prepared, made, receipt)
            self._draw()

    def failed(self, prepared: Prepared, error: BaseException | str | None) -> None:
        """The call failed or was given up."""
        with self._lock:
            self.tally.failed += error not in (None, "abandoned")
            self._draw()

    def close(self) -> None:
        """Take the line away and give its place back; it is not drawn again."""
        with self._lock:
            console, self._console = self._console, None
            if console is not None and self._size is not None:
                end = f"{_SAVE}\x1b[r\x1b[{self._size.lines};1H{_CLEAR}{_RESTORE}"
                with suppress(OSError, ValueError):  # It may be gone, or closed.
                    _write(console, end)

    def _draw(self) -> None:
        """Write the line in its place, and leave the cursor where it was."""
        console = self._console
        if console is None:
            return
        try:
            size = os.get_terminal_size(console.file.fileno())
            if size.lines < MIN_ROWS:
                return
            room = "" if size == self._size else _room(size, self._size)
            self._size = size
            line = self._rendered(console, size.columns)
            _write(console, f"{room}{_SAVE}\x1b[{size.lines};1H{_CLEAR}{line}{_RESTORE}")
        except (OSError, ValueError):  # No terminal any more.
            self._console = None

    def _rendered(self, console: Console, columns: int) -> str:
        from rich.text import Text

        said = "".join(filter(str.isprintable, " · ".join(self.tally.parts())))
        line = Text.assemble((" leyline ", "bold reverse"), " ", said)
        line.truncate(columns - 1, overflow="ellipsis")
        with console.capture() as captured:
            console.print(line, end="", soft_wrap=True, highlight=False)
        return captured.get()


@contextmanager
def live(file: IO[str] | None = None) -> Iterator[LiveLine]:
    """A line at the bottom of the terminal that says how all sessions of this process do.

    Args:
        file: the terminal; standard output where it is one, else standard error. Where there is
            none, or the environment has `CI`, nothing is written.
    """
    line = LiveLine(file)
    observer.observe(line)
    try:
        yield line
    finally:
        observer.stop(line)
        line.close()


_asked_for: LiveLine | None = None


def live_as_asked() -> None:
    """What LEYLINE_LIVE asks for: the line for the rest of the process."""
    global _asked_for
    if _asked_for is None:
        _asked_for = LiveLine()
        observer.observe(_asked_for)


def _console(file: IO[str] | None) -> Console | None:
    """The terminal; None where there is none that can show the line, or nobody looks at it."""
    streams = (sys.stdout, sys.stderr) if file is None else (file,)
    terminal = next((stream for stream in streams if stream and stream.isatty()), None)
    if terminal is None or os.environ.get("CI"):
        return None
    from rich.console import Console

    console = Console(file=terminal)
    return None if console.is_dumb_terminal or console.legacy_windows else console


def _room(size: os.terminal_size, before: os.terminal_size | None) -> str:
    """Take the last row out of what scrolls; the text there moves up if there is any.

    Of a terminal that has grown the row that was the last before is cleared.
    """
    grown = before is not None and before.lines < size.lines
    old = f"{_SAVE}\x1b[{before.lines};1H{_CLEAR}{_RESTORE}" if before and grown else ""
    return f"{old}{_INDEX}{_UP}{_SAVE}\x1b[1;{size.lines - 1}r{_RESTORE}"


def _write(console: Console, text: str) -> None:
    """In one piece, so that what others write does not come in between."""
    console.file.write(text)
    console.file.flush()


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _close(line: weakref.ref[LiveLine]) -> None:
    found = line()
    if found is not None:
        found.close()
