#!/usr/bin/env python3
"""Check a built wheel and sdist: `scripts/check_dist.py DIR`. Exits 1 and says why when one is off.

The wheel holds the four import packages and nothing else beside its metadata, each typed, and
every entry point names a module that is in it. Neither holds recorded data of others.
"""

from __future__ import annotations

import configparser
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PACKAGES = {"leyline_agent", "leyline_policies", "leyline_adapters", "leyline_evals"}
DATA = (".gz", ".traj", ".jsonl", ".gguf", ".safetensors")
OWN = "leyline_evals/swe_bench/shipped/instances.jsonl"  # problems of our own making
LIMIT = 2_000_000  # bytes; a package of source and one recording stays far below


def only(folder: Path, pattern: str) -> Path:
    """The one file of that pattern."""
    found = list(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"check_dist: {len(found)} files {pattern} in {folder}, expected one")
    return found[0]


def wheel_faults(path: Path) -> Iterator[str]:
    """What is wrong with a wheel."""
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
        entry_points = next(name for name in names if name.endswith("/entry_points.txt"))
        table = configparser.ConfigParser(delimiters=("=",))
        table.read_string(wheel.read(entry_points).decode())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if tops != PACKAGES:
        yield f"top-level entries are {sorted(tops)}, expected {sorted(PACKAGES)}"
    for package in PACKAGES:
        if f"{package}/py.typed" not in names:
            yield f"{package} has no py.typed"
    if not any(name.endswith("/licenses/LICENSE") for name in names):
        yield "no LICENSE"
    for group in table.sections():
        for name, target in table[group].items():
            stem = target.split(":")[0].replace(".", "/")
            if not {f"{stem}.py", f"{stem}/__init__.py"} & set(names):
                yield f"entry point {group}: {name} = {target} names no module of the wheel"


def common_faults(path: Path, names: list[str]) -> Iterator[str]:
    """What must hold for both kinds."""
    for name in names:
        if PurePosixPath(name).suffix in DATA and not name.endswith(OWN):
            yield f"holds data: {name}"
    if path.stat().st_size > LIMIT:
        yield f"is {path.stat().st_size} bytes, more than {LIMIT}"


def main() -> None:
    """Check the folder named on the command line."""
    folder = Path(sys.argv[1])
    wheel, sdist = only(folder, "*.whl"), only(folder, "*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        faults = [f"{wheel.name}: {fault}" for fault in common_faults(wheel, archive.namelist())]
    faults += [f"{wheel.name}: {fault}" for fault in wheel_faults(wheel)]
    with tarfile.open(sdist) as archive:
        faults += [f"{sdist.name}: {fault}" for fault in common_faults(sdist, archive.getnames())]
    if faults:
        sys.exit("\n".join(faults))
    print(f"{wheel.name} and {sdist.name} hold what they should")


if __name__ == "__main__":
    main()
