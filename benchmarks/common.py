"""What the benchmarks share: interleaved timing, random prompts, results as JSON."""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Spread", "interleaved", "machine", "random_tokens", "save", "spread"]


_LOAD_AT_START = round(os.getloadavg()[0], 2)  # Before anything is measured: later it is our own.


@dataclass(frozen=True)
class Spread:
    """Milliseconds over several rounds."""

    median: float
    low: float
    high: float
    rounds: int


def spread(milliseconds: list[float]) -> Spread:
    """The median and the extremes of some timings."""
    return Spread(
        round(statistics.median(milliseconds), 3),
        round(min(milliseconds), 3),
        round(max(milliseconds), 3),
        len(milliseconds),
    )


def interleaved(
    arms: Mapping[str, Callable[[], None]], rounds: int, warmups: int = 1
) -> dict[str, Spread]:
    """Time each arm once a round, A B C A B C ..., so that drift of the machine hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + warmups):
        for name, arm in arms.items():
            started = time.perf_counter()
            arm()
            if number >= warmups:
                times[name].append((time.perf_counter() - started) * 1e3)
    return {name: spread(values) for name, values in times.items()}


def random_tokens(count: int, seed: int, vocab: int = 40_000) -> list[int]:
    """Tokens that repeat nothing on purpose."""
    rng = random.Random(seed)
    return [rng.randrange(100, vocab) for _ in range(count)]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [s for s in info.read_text().splitlines() if s.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    return {"cpu": cpu, "cores": os.cpu_count(), "load_at_start": _LOAD_AT_START}


def save(path: str | None, name: str, figures: Mapping[str, Any]) -> None:
    """Print the figures, and write them to `path` with the machine's description."""
    record = {"benchmark": name, "machine": machine(), **_plain(figures)}
    text = json.dumps(record, indent=2)
    print(text)
    if path is not None:
        Path(path).write_text(text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Spread):
        return asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
