"""The garbage collector while replaying: out of the way of what is timed and counted."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["settle", "settled_memory"]

# Sessions hold many small objects for long; looking through them all again and again costs a
# tenth of the time, and lands in the turn it happens in.
THRESHOLDS = (50_000, 20, 100)


def settle() -> None:
    """Leave alone what is loaded, and look through the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


@contextmanager
def settled_memory() -> Iterator[None]:
    """`settle` for a while."""
    before = gc.get_threshold()
    settle()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
