"""What a process and all it started have used: memory and processor time, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["tree_cpu_s", "tree_peak_mb"]


def tree_peak_mb(root: int) -> float:
    """The peaks of a process and its descendants together; what they share counts in each."""
    peaks = (status.get("VmHWM", "0 kB") for _, status in _tree(root))
    return round(sum(float(peak.split()[0]) / 1024 for peak in peaks), 1)


def tree_cpu_s(root: int) -> float:
    """Seconds of processor time of a process and its living descendants."""
    ticks = 0
    for folder, _ in _tree(root):
        # Behind the name, which may have spaces: state is field 3, utime 14, stime 15.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _tree(root: int) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folder and the status of a process and each of its descendants."""
    found: dict[int, tuple[Path, dict[str, str]]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "status").read_text().splitlines()
        except OSError:  # it ended meanwhile
            continue
        found[int(folder.name)] = folder, dict(line.split(":", 1) for line in lines if ":" in line)
    for pid, one in found.items():
        above = pid
        while above not in (0, root) and above in found:
            above = int(found[above][1]["PPid"])
        if above == root:
            yield one
