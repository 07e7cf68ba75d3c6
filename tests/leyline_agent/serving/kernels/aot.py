"""Compile the kernels for GPUs that are not here, in a process of its own.

    python tests/leyline_agent/serving/kernels/aot.py [--full] [--jobs 2] [--only NAME]

Every file `aot_*.py` beside this one has a function `entries()` that yields `Entry`s. Each is
compiled for every target, down to machine code; a line of JSON tells the shared memory or the
error. Compiling proves that a kernel is accepted and fits, not that it runs.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

TARGETS = {
    "sm80": ("cuda", 80, 32),
    "sm90": ("cuda", 90, 32),
    "sm100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
SHARED_LIMITS = {"sm80": 166_912, "sm90": 232_448, "sm100": 232_448, "gfx942": 65_536}
"""Bytes of shared memory a program may have."""


class Entry(NamedTuple):
    """One specialisation of a kernel.

    Attributes:
        name: what results are printed under; unique.
        kernel: the jitted function.
        types: its ordinary arguments' types, such as "*bf16", "i32", "i64", "fp32".
        constants: its constexprs, and None for pointers left out.
        options: num_warps, num_stages.
        aligned: number arguments that are multiples of 16, as strides mostly are; pointers are.
        small: part of the representative set.
    """

    name: str
    kernel: Any
    types: Mapping[str, str]
    constants: Mapping[str, Any]
    options: Mapping[str, int] = {"num_warps": 4}
    aligned: tuple[str, ...] = ()
    small: bool = False


def all_entries() -> Iterator[Entry]:
    """What the kernels' owners registered."""
    for file in sorted(Path(__file__).parent.glob("aot_*.py")):
        yield from importlib.import_module(file.stem).entries()


@functools.cache
def _by_name() -> dict[str, Entry]:
    entries = list(all_entries())
    found = {entry.name: entry for entry in entries}
    assert len(found) == len(entries), "two entries have one name"
    return found


def build(entry: Entry, target: str) -> Any:
    """The compiled kernel: `.asm` by stage, `.metadata.shared` in bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = entry.kernel.arg_names
    signature = {n: "constexpr" if n in entry.constants else entry.types[n] for n in names}
    aligned = [n for n in names if signature[n].startswith("*") or n in entry.aligned]
    source = ASTSource(
        fn=entry.kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in entry.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    # Whether products and sums are fused is said, not left to a default that is to change.
    options = {"enable_fp_fusion": True, **entry.options}
    return triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)


def compile_one(name: str, target: str) -> dict[str, Any]:
    """Compile; what came of it."""
    start = time.perf_counter()
    found: dict[str, Any] = {"kernel": name, "target": target}
    try:
        built = build(_by_name()[name], target)
        binary = built.asm["hsaco" if target.startswith("gfx") else "cubin"]
        found |= {"shared": built.metadata.shared, "limit": SHARED_LIMITS[target]}
        found["bytes"] = len(binary)
    except Exception as error:  # whatever the compiler raises is the finding
        found["error"] = f"{type(error).__name__}: {error}"
    return {**found, "seconds": round(time.perf_counter() - start, 2)}


def main() -> None:
    """Compile what was asked for and print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="every entry, not the representative")
    parser.add_argument("--only", default="", help="entries whose name contains this")
    parser.add_argument("--jobs", type=int, default=2)
    wanted = parser.parse_args()
    chosen = [e for e in _by_name().values() if (wanted.full or e.small) and wanted.only in e.name]
    jobs = [(entry.name, target) for entry in chosen for target in TARGETS]
    with ProcessPoolExecutor(wanted.jobs) as pool:
        for found in pool.map(compile_one, *zip(*jobs, strict=True)):
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    main()
