"""Children of the environment that has mini-swe-agent and swebench, and what they are told.

A child serves one episode after the other, so that its imports are paid once. One whose work failed
is ended, with all it started, and the next episode gets a new one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from leyline_evals.solve.child import Child
from leyline_evals.solve.errors import EvalError

__all__ = ["ChildFailed", "Children", "done", "hear"]


class ChildFailed(EvalError):
    """A child that says it could not do what it was told.

    Attributes:
        kind: the name of what it raised.
    """

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


def hear(child: Child, seconds: float) -> dict[str, Any]:
    """What a child says next.

    Raises:
        EvalError: it died, says nothing for so long, or (`ChildFailed`) says that it failed.
    """
    heard = child.receive(seconds)
    if "failed" in heard:
        raise ChildFailed(str(heard["failed"]), str(heard.get("kind")))
    return heard


def done(child: Child, seconds: float, /, **told: Any) -> Any:
    """What a child makes of an order that asks nothing back."""
    child.send(told)
    return hear(child, seconds)["done"]


class Children:
    """Children that wait for work. Thread-safe.

    Args:
        words: the command that starts one.
        name: for what is told of them.
    """

    def __init__(self, words: Sequence[str], name: str) -> None:
        self._words = words
        self._name = name
        self._idle: list[Child] = []
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Child]:
        """A child for as long as the block lasts; one whose block raises is ended."""
        with self._lock:
            child = self._idle.pop() if self._idle else None
        child = child or Child(self._words, self._name)
        try:
            yield child
        except BaseException:
            child.close()
            raise
        with self._lock:
            self._idle.append(child)

    def close(self) -> None:
        """End those that wait."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()
