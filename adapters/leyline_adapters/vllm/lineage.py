"""Namespaced block hashes: what is spliced is found again by its own lineage and nobody else.

vLLM finds cached blocks by a chain of hashes over their tokens. From the block on in which a
lineage forks off, its hash is replaced by one that also covers the fork's name; all later hashes
chain from it, those of generated tokens included.

    canonical   h0 - h1 - h2 - h3 - ...
    lineage     h0 - h1 - n2 - n3 - ...      n2 = H(name, h2), n3 = H(n2, tokens)

The block of the fork is namespaced as a whole, with the exact tokens in front of the fork.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

__all__ = ["Mark", "fork_name", "inherited", "namespaced"]


@dataclass(frozen=True)
class Mark:
    """From token `start` on, KV belongs to the lineage `name`."""

    start: int
    name: bytes


def fork_name(secret: bytes, *parts: object) -> bytes:
    """A name that nobody can guess, the same for the same parts: a retry finds what it made."""
    digest = sha256(secret)
    for part in parts:
        said = repr(part).encode()
        digest.update(len(said).to_bytes(8, "little") + said)
    return digest.digest()


def inherited(marks: Sequence[Mark], shared: int) -> tuple[Mark, ...]:
    """The marks in front of token `shared`."""
    return tuple(mark for mark in marks if mark.start < shared)


def namespaced(
    hasher: Callable[[Any], list[bytes]], marks: Sequence[Mark], block_size: int
) -> Callable[[Any], list[bytes]]:
    """A request's block hasher that salts the blocks in which `marks` begin.

    Like `hasher` it gives the hashes of the request's full blocks that are not in
    `request.block_hashes` yet, chained from the last one there.
    """
    names: dict[int, bytes] = {}
    for mark in marks:
        block = mark.start // block_size
        names[block] = names.get(block, b"") + mark.name

    def hashes(request: Any) -> list[bytes]:
        done = len(request.block_hashes)
        try:
            while fresh := hasher(request):
                at = len(request.block_hashes)
                salted = next((b for b in sorted(names) if at <= b < at + len(fresh)), None)
                if salted is None:
                    request.block_hashes.extend(fresh)
                    break
                keep = fresh[: salted - at + 1]
                keep[-1] = sha256(names[salted] + keep[-1]).digest()
                request.block_hashes.extend(keep)
            return list(request.block_hashes[done:])
        finally:
            del request.block_hashes[done:]

    return hashes
