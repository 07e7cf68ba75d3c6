"""The cases of `kernels.py`: one kernel a function, each with a check that it did its work.

Bytes are counted as a kernel must move them: what it reads once and what it writes once. Bandwidth
is told beside that of a plain copy, measured in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from leyline_agent.serving.kernels.backend import Rows
from leyline_agent.serving.kernels.kv_store import kv_store
from leyline_agent.serving.kernels.rope_shift import plan_shift, rope_shift, rope_shift_reference
from leyline_agent.serving.kv.sequence import Segment
from leyline_agent.serving.kv.slots import SlotPool
from leyline_agent.serving.kv.store import KVStore
from leyline_agent.serving.kv.working_copy import WorkingCopy
from leyline_agent.serving.models.probe import KVShape
from leyline_agent.serving.models.rope import RopeSpec

__all__ = ["Row", "Sizes", "cases"]

DTYPE = torch.bfloat16
TOLERANCE = 1e-2  # of attention in bfloat16, relative to the largest value


class Row(NamedTuple):
    """A line of the table. What does not apply is None.

    Attributes:
        case: what was measured.
        tokens, batch, segments: of each sequence, how many sequences, in how many segments each.
        ms: the median of the rounds.
        gb_per_s: bytes that must be moved, by the time.
        ratio: to what `against` says.
        against: "copy" (bandwidths), or another case of the same size (times).
    """

    case: str
    tokens: int
    batch: int = 1
    segments: int = 1
    ms: float = 0.0
    gb_per_s: float | None = None
    ratio: float | None = None
    against: str = ""


@dataclass(frozen=True)
class Sizes:
    """How large the cases are. The heads are those of an 8B Llama."""

    device: str = "cuda"
    tokens: int = 32_768
    batches: tuple[int, ...] = (1, 8, 32)
    segments: tuple[int, ...] = (1, 8, 125)
    heads: tuple[int, int, int] = (32, 8, 128)  # of queries, of keys, their size
    copy_bytes: int = 2 << 30
    stored: int = 1 << 17
    rounds: int = 30
    warmups: int = 3

    @property
    def slots(self) -> int:
        """Slots that hold the largest batch, with room between segments."""
        return max(self.batches) * (self.tokens + 2 * max(self.segments))


DRY = Sizes("cpu", 40, (1, 2), (1, 3), (4, 2, 32), 1 << 16, 20, rounds=1, warmups=0)
"""Toy sizes for the interpreter: shows that the script runs, and measures nothing."""


def timed(
    arms: Mapping[str, Callable[[], object]], sizes: Sizes, *, eager: Collection[str] = ()
) -> dict[str, float]:
    """Median milliseconds of each arm, A B C A B C ..., by the device's own clock.

    On a GPU arms are replayed from captured graphs, so that Python is not what is measured; those
    that work on the host too are named as `eager`.
    """
    gpu = sizes.device == "cuda"
    ready = {n: arm if n in eager or not gpu else _captured(arm) for n, arm in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(sizes.rounds + sizes.warmups):
        for name, arm in ready.items():
            spent = _device_ms(arm) if gpu else _host_ms(arm)
            if number >= sizes.warmups:
                times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def _captured(arm: Callable[[], object]) -> Callable[[], object]:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        arm()  # compiles
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        arm()
    return graph.replay


def _device_ms(arm: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    arm()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _host_ms(arm: Callable[[], object]) -> float:
    started = time.perf_counter()
    arm()
    return (time.perf_counter() - started) * 1e3


def cases(sizes: Sizes) -> Iterator[Row]:
    """Every kernel's rows, the copy first."""
    copied = copy(sizes)
    yield copied
    limit = copied.gb_per_s or 1.0
    yield from shift(sizes, limit)
    yield store(sizes, limit)
    yield from decode(sizes, limit)
    yield from offsets(sizes)
    yield from working_copy(sizes)


def moved(case: str, num_bytes: int, ms: float, limit: float, **known: int) -> Row:
    """A row of bandwidth, beside the copy's."""
    gb_per_s = num_bytes / ms / 1e6
    return Row(case, ms=ms, gb_per_s=gb_per_s, ratio=gb_per_s / limit, against="copy", **known)


def copy(sizes: Sizes) -> Row:
    """What the memory can do: one large tensor into another."""
    source = torch.randint(0, 255, (sizes.copy_bytes,), dtype=torch.uint8, device=sizes.device)
    target = torch.zeros_like(source)
    ms = timed({"copy": lambda: target.copy_(source)}, sizes)["copy"]
    assert torch.equal(source, target), "the copy must have copied"
    return moved("copy", 2 * sizes.copy_bytes, ms, 1.0, tokens=0)._replace(ratio=1.0)


def shift(sizes: Sizes, limit: float) -> Iterator[Row]:
    """Keys of a whole batch gathered from segments and turned; and turned where they are."""
    _, heads, dim = sizes.heads
    total = sizes.tokens * max(sizes.batches)
    keys, out = normal(sizes, total, heads, dim), normal(sizes, total, heads, dim)
    rng = np.random.default_rng(0)
    piece = sizes.tokens // 8
    source = rng.permutation(np.arange(total).reshape(-1, piece)).ravel()
    deltas = np.repeat(rng.integers(-4000, 0, total // piece), piece)
    rope, rows = make_rope(dim), np.arange(total)
    gather = plan_shift(source, None, deltas, rope, DTYPE, sizes.device)
    rope_shift(keys, out, gather)
    expected = torch.empty_like(out)
    rope_shift_reference(keys, expected, gather)
    assert (out != expected).double().mean() < 1e-3, "the shift must be the reference's"
    del expected
    still = plan_shift(rows, rows, deltas, rope, DTYPE, sizes.device)
    arms = {
        "rope shift, gathered": lambda: rope_shift(keys, out, gather),
        "rope shift, in place": lambda: rope_shift(keys, keys, still),
    }
    num_bytes = 2 * keys.numel() * DTYPE.itemsize
    for name, ms in timed(arms, sizes).items():
        yield moved(name, num_bytes, ms, limit, tokens=total)


def store(sizes: Sizes, limit: float) -> Row:
    """New keys and values of many tokens into scattered slots."""
    _, heads, dim = sizes.heads
    keys, values = (normal(sizes, sizes.stored, heads, dim) for _ in range(2))
    key, value = (normal(sizes, sizes.stored, heads, dim).transpose(0, 1) for _ in range(2))
    slots = torch.randperm(sizes.stored, device=sizes.device)
    ms = timed({"store": lambda: kv_store(keys, values, key, value, slots)}, sizes)["store"]
    assert torch.equal(keys[slots], key.transpose(0, 1)), "the keys must be in their slots"
    assert torch.equal(values[slots], value.transpose(0, 1)), "the values must be in their slots"
    num_bytes = 4 * keys.numel() * DTYPE.itemsize
    return moved("KV store", num_bytes, ms, limit, tokens=sizes.stored)


class Attention:
    """One layer's KV, and decode attention over it by the Triton backend."""

    def __init__(self, sizes: Sizes) -> None:
        from leyline_agent.serving.kernels.triton_backend import TritonBackend

        heads, kv_heads, dim = sizes.heads
        self.sizes, self.scale = sizes, dim**-0.5
        self.rope = make_rope(dim)
        layer = KVShape(kv_heads, dim, dim, None)
        self.kv = KVStore([layer], sizes.slots, DTYPE, sizes.device)
        self.kv.keys[0].normal_()
        self.kv.values[0].normal_()
        self.query = normal(sizes, heads, max(sizes.batches), dim)
        self.backend = TritonBackend(self.kv, self.rope)

    def batch(self, count: int, segments: int, *, moved: bool) -> list[Rows]:
        """`count` sequences in `segments` pieces each; with `moved` they stand elsewhere."""
        tokens = self.sizes.tokens
        edges = np.linspace(0, tokens, segments + 1).astype(int)
        rows = []
        for number in range(count):
            first = number * (tokens + 2 * max(self.sizes.segments))
            pieces = [
                Segment(first + int(a) + 2 * i, int(b - a), -7 * i - 5 if moved else 0)
                for i, (a, b) in enumerate(zip(edges[:-1], edges[1:], strict=True))
            ]
            rows.append(Rows(pieces, np.array([tokens - 1])))
        return rows

    def arm(self, count: int, segments: int, *, moved: bool) -> Callable[[], Tensor]:
        """Attention of one decoding step, planned already; checked against torch's."""
        rows, query = self.batch(count, segments, moved=moved), self.query[:, :count]
        # The first pass of all tells the backend what heads there are.
        self.backend.attend(self.backend.plan(rows), 0, query, self.scale)
        plan = self.backend.plan(rows)
        self._check(rows[-1], self.backend.attend(plan, 0, query, self.scale)[-1], query[:, -1:])
        return lambda: self.backend.attend(plan, 0, query, self.scale)

    def _check(self, rows: Rows, out: Tensor, query: Tensor) -> None:
        """The last sequence's output, over keys rotated one by one in float32."""
        slots = torch.from_numpy(np.concatenate([np.arange(*s.extent) for s in rows.segments]))
        keys, values = (t[0][slots.to(t[0].device)].float() for t in (self.kv.keys, self.kv.values))
        deltas = torch.cat([torch.full((s.length,), s.offset) for s in rows.segments])
        cos, sin = (t[:, None].to(keys.device) for t in self.rope.tables(deltas))
        keys = self.rope.rotate(keys, cos, sin)
        groups = query.shape[0] // keys.shape[1]
        grouped = query[:, 0].float().unflatten(0, (-1, groups))
        weights = (torch.einsum("hgd,nhd->hgn", grouped, keys) * self.scale).softmax(-1)
        expected = torch.einsum("hgn,nhd->hgd", weights, values).flatten(0, 1)
        error = (out.float() - expected).abs().max() / expected.abs().max()
        assert error < TOLERANCE, f"attention is off by {error:.3g}"

    @property
    def bytes_a_token(self) -> int:
        """Keys and values that one token makes attention read."""
        return self.kv.bytes_per_token


def decode(sizes: Sizes, limit: float) -> Iterator[Row]:
    """Bandwidth of decode attention over whole sequences."""
    attention = Attention(sizes)
    for count in sizes.batches:
        arms = {"decode attention": attention.arm(count, 1, moved=False)}
        num_bytes = count * sizes.tokens * attention.bytes_a_token
        for name, ms in timed(arms, sizes).items():
            yield moved(name, num_bytes, ms, limit, tokens=sizes.tokens, batch=count)


def offsets(sizes: Sizes) -> Iterator[Row]:
    """What it costs that segments stand elsewhere: the same segments with and without offsets."""
    attention = Attention(sizes)
    count = min(8, max(sizes.batches))
    for segments in sizes.segments:
        arms = {
            "decode, no offsets": attention.arm(count, segments, moved=False),
            "decode, offsets": attention.arm(count, segments, moved=True),
        }
        plain, turned = timed(arms, sizes).values()
        at = {"tokens": sizes.tokens, "batch": count, "segments": segments}
        yield Row("decode, no offsets", ms=plain, **at)
        yield Row("decode, offsets", ms=turned, ratio=turned / plain, against="no offsets", **at)


def working_copy(sizes: Sizes) -> Iterator[Row]:
    """Reading many segments where they lie, against a copy: making it, and reading it."""
    attention = Attention(sizes)
    segments = max(sizes.segments)
    rows = attention.batch(1, segments, moved=True)[0]
    copy = WorkingCopy(attention.kv, SlotPool(sizes.slots), attention.rope)

    def make() -> None:
        copy.invalidate()
        assert copy.update(rows.segments) == sizes.tokens, "the whole copy must be made"

    arms = {
        "zero-copy, attended": attention.arm(1, segments, moved=True),
        "working copy, made": make,
        "working copy, attended": attention.arm(1, 1, moved=False),
    }
    times = timed(arms, sizes, eager={"working copy, made"})
    pieces = dict.fromkeys(times, segments) | {"working copy, attended": 1}
    for name, ms in times.items():
        ratio = ms / times["zero-copy, attended"]
        at = {"tokens": sizes.tokens, "segments": pieces[name]}
        yield Row(name, ms=ms, ratio=ratio, against="zero-copy, attended", **at)


def normal(sizes: Sizes, *shape: int) -> Tensor:
    """Random numbers on the device."""
    return torch.empty(shape, dtype=DTYPE, device=sizes.device).normal_()


def make_rope(dim: int) -> RopeSpec:
    """As Llama 3 rotates."""
    return RopeSpec(5e5 ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim), "half")
