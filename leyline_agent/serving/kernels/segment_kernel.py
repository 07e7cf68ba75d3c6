"""The Triton kernels behind segment attention: one loop over tiles for decode, extend and MLA.

A program takes one item of a work list and the query heads of one key head. Its rows are query
tokens x query heads; it walks over the item's keys, a tile at a time, with an online softmax
(FlashAttention, arXiv 2205.14135), and leaves a partial result; `merge_kernel` folds the partial
results of a query together by their log-sum-exp (split-KV, as in Flash-Decoding).

    runs   the rows are turned by -offset once a run; keys go into the product as they lie
    spans  keys are turned by their own offsets in registers; the rows stay as they are

Both compute x * cos + x[partner] * sin and read the partner through an index of its own, which
serves half-split and interleaved pairs and partial rotary alike and takes no key tile apart. A
head is read in two blocks: sizes 80, 96 and 192 need no padding so, and MLA's head (64 rotated +
512 latent) is a head like any other. Where the values are the keys' own last dimensions (`SHARED`)
the second block is the values too, read once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from leyline_agent.serving.kernels.triton_math import Tile, cast, dot

__all__ = ["merge_kernel", "segment_kernel"]


@triton.jit
def _load_head(
    base: Tile, seen: Tile, first: Tile, second: Tile, D: tl.constexpr, BLOCK_B: tl.constexpr
) -> Tile:
    """Both blocks of the heads at `base` [n, 1] where `seen` [n, 1]; one twice if there is one."""
    a = tl.load(base + first[None, :], mask=seen & (first < D)[None, :], other=0.0)
    b = a
    if BLOCK_B:
        b = tl.load(base + second[None, :], mask=seen & (second < D)[None, :], other=0.0)
    return a, b


@triton.jit
def _load_values(
    base: Tile, kb: Tile, seen: Tile, D_V: tl.constexpr, BLOCK: tl.constexpr, SHARED: tl.constexpr
) -> Tile:
    """The values at `base` [n, 1] where `seen` [n, 1]; the keys' second block if it is they."""
    v = kb
    if not SHARED:
        wide = tl.arange(0, BLOCK)[None, :]
        v = tl.load(base + wide, mask=seen & (wide < D_V), other=0.0)
    return v


@triton.jit
def _turn(
    x: Tile,
    base: Tile,
    seen: Tile,
    d: Tile,
    tables: Tile,
    row: Tile,
    back: Tile,
    num_rows: Tile,
    ROTARY: tl.constexpr,
    INTERLEAVED: tl.constexpr,
) -> Tile:
    """Dimensions `d` of the heads at `base` turned by table rows `row` [n or 1, 1].

    `x` [n, d] is what was loaded from there; `back` is -1 to turn the other way.
    """
    if INTERLEAVED:
        partner = d ^ 1
    else:
        partner = tl.where(d < ROTARY // 2, d + ROTARY // 2, d - ROTARY // 2)
    turns = (d < ROTARY)[None, :]
    at = row * ROTARY + d[None, :]
    cos = tl.load(tables + at, mask=turns, other=1.0)
    sin = tl.load(tables + num_rows * ROTARY + at, mask=turns, other=0.0)
    y = tl.load(base + partner[None, :], mask=seen & turns, other=0.0)
    return cast(x.to(tl.float32) * cos + y.to(tl.float32) * (sin * back), x.dtype)


@triton.jit
def _turn_head(
    a: Tile,
    b: Tile,
    base: Tile,
    seen: Tile,
    first: Tile,
    second: Tile,
    tables: Tile,
    row: Tile,
    back: Tile,
    num_rows: Tile,
    ROTARY: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_A: tl.constexpr,
) -> Tile:
    """Both blocks of heads turned, as `_turn`; the second only where the rotation reaches it."""
    a = _turn(a, base, seen, first, tables, row, back, num_rows, ROTARY, INTERLEAVED)
    if ROTARY > BLOCK_A:
        b = _turn(b, base, seen, second, tables, row, back, num_rows, ROTARY, INTERLEAVED)
    return a, b


@triton.jit
def _step(
    qa: Tile,
    qb: Tile,
    ka: Tile,
    kb: Tile,
    v: Tile,
    seen: Tile,
    top: Tile,
    total: Tile,
    acc: Tile,
    scale: Tile,
    BLOCK_B: tl.constexpr,
) -> Tile:
    """One tile of keys: the running maximum, sum and weighted values with it. Powers of two."""
    scores = dot(qa, tl.trans(ka))
    if BLOCK_B:
        scores = dot(qb, tl.trans(kb), scores)
    scores = tl.where(seen, scores * scale, float("-inf"))
    higher = tl.maximum(top, tl.max(scores, 1))
    base = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen no key yet
    weights = tl.exp2(scores - base[:, None])
    fade = tl.exp2(top - base)
    acc = dot(cast(weights, v.dtype), v, acc * fade[:, None])
    return higher, total * fade + tl.sum(weights, 1), acc


@triton.jit(do_not_specialize=["window", "num_spans", "num_rows"])
def segment_kernel(
    query: Tile,
    keys: Tile,
    values: Tile,
    out: Tile,
    sums: Tile,
    items: Tile,
    runs: Tile,
    spans: Tile,
    positions: Tile,
    tables: Tile,
    scale: Tile,
    window: Tile,
    num_spans: Tile,
    num_rows: Tile,
    query_head: Tile,
    query_token: Tile,
    key_slot: Tile,
    key_head: Tile,
    value_slot: Tile,
    value_head: Tile,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    D_V: tl.constexpr,
    ROTARY: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_A: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TURNS: tl.constexpr,
    SPANS: tl.constexpr,
    MASKED: tl.constexpr,
    SHARED: tl.constexpr,
    SPLIT: tl.constexpr,
) -> None:
    """Attention of one item's queries over its keys. Grid: (items, key heads x head chunks).

    Where:
        query: [HEADS, tokens, D], heads and tokens `query_head` and `query_token` apart.
        keys, values: [slots, key heads, D or D_V], `key_slot`, `key_head`, ... apart.
        out: [tokens, HEADS, D_V]; with SPLIT float32 [items * QUERIES, HEADS, D_V].
        sums: with SPLIT the base-2 log-sum-exp float32 [items * QUERIES, HEADS].
        items, runs, spans: int32 tables of the work list; [3, num_spans] for the spans.
        positions: int32 logical positions of the query tokens; read if MASKED.
        tables: float32 [2, num_rows, ROTARY] cosines and signed sines of -offset; read if TURNS.
        scale: factor on the scores, times log2(e).
        window: if MASKED, a query at p sees keys in (p - window, p].
        HEADS, GROUP: query heads, and how many of them share a key head.
        QUERIES, BLOCK_H: query tokens of an item, and query heads of a program.
        BLOCK_M, BLOCK_N: rows of a program (at least QUERIES * BLOCK_H), keys of a tile.
        BLOCK_A, BLOCK_B, BLOCK_V: the blocks of a head, 0 for no second one; of a value.
        SPANS: whether any item has spans.
    """
    item = items + tl.program_id(0) * 8
    chunks: tl.constexpr = (GROUP + BLOCK_H - 1) // BLOCK_H
    kv_head = tl.program_id(1) // chunks
    rows = tl.arange(0, BLOCK_M)
    local = rows // BLOCK_H
    member = tl.program_id(1) % chunks * BLOCK_H + rows % BLOCK_H
    used = (local < tl.load(item + 1)) & (local < QUERIES) & (member < GROUP)
    token = (tl.load(item) + local).to(tl.int64)
    head = kv_head * GROUP + member
    first = tl.arange(0, BLOCK_A)
    second = BLOCK_A + tl.arange(0, BLOCK_B if BLOCK_B else BLOCK_A)
    wide = tl.arange(0, BLOCK_V)
    q = query + (head.to(tl.int64) * query_head + token * query_token)[:, None]
    qa, qb = _load_head(q, used[:, None], first, second, D, BLOCK_B)
    if MASKED:
        here = tl.load(positions + token, mask=used, other=0)[:, None]
    k_base = keys + kv_head.to(tl.int64) * key_head
    v_base = values + kv_head.to(tl.int64) * value_head
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)

    run_lo, run_hi = tl.load(item + 2), tl.load(item + 3)
    begin, end = tl.load(item + 4), tl.load(item + 5)
    for index in range(run_lo, run_hi):
        run = runs + index * 4
        slot = tl.load(run).to(tl.int64)
        low = tl.where(index == run_lo, begin, 0)
        high = tl.where(index == run_hi - 1, end, tl.load(run + 1))
        at = tl.load(run + 3)
        ra, rb = qa, qb
        if TURNS:
            ra, rb = _turn_head(
                qa, qb, q, used[:, None], first, second, tables, tl.load(run + 2), 1.0, num_rows,
                ROTARY, INTERLEAVED, BLOCK_A,
            )  # fmt: skip
        for start in range(low, high, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            there = (n < high)[:, None]
            slots = (slot + n)[:, None]
            ka, kb = _load_head(k_base + slots * key_slot, there, first, second, D, BLOCK_B)
            v = _load_values(v_base + slots * value_slot, kb, there, D_V, BLOCK_V, SHARED)
            seen = (n < high)[None, :]
            if MASKED:
                where = (at + n)[None, :]
                seen = seen & (where <= here) & (where > here - window)
            top, total, acc = _step(ra, rb, ka, kb, v, seen, top, total, acc, scale, BLOCK_B)

    if SPANS:
        span_hi = tl.load(item + 7)
        # Not pipelined: the tables of a tile would take four times the shared memory of its keys.
        for start in tl.range(tl.load(item + 6), span_hi, BLOCK_N, num_stages=1):
            n = start + tl.arange(0, BLOCK_N)
            there = (n < span_hi)[:, None]
            slots = tl.load(spans + n, mask=n < span_hi, other=0).to(tl.int64)[:, None]
            k = k_base + slots * key_slot
            ka, kb = _load_head(k, there, first, second, D, BLOCK_B)
            v = _load_values(v_base + slots * value_slot, kb, there, D_V, BLOCK_V, SHARED)
            if TURNS:
                row = tl.load(spans + num_spans + n, mask=n < span_hi, other=0)[:, None]
                ka, kb = _turn_head(
                    ka, kb, k, there, first, second, tables, row, -1.0, num_rows,
                    ROTARY, INTERLEAVED, BLOCK_A,
                )  # fmt: skip
            seen = (n < span_hi)[None, :]
            if MASKED:
                where = tl.load(spans + 2 * num_spans + n, mask=n < span_hi, other=0)[None, :]
                seen = seen & (where <= here) & (where > here - window)
            top, total, acc = _step(qa, qb, ka, kb, v, seen, top, total, acc, scale, BLOCK_B)

    acc = acc / tl.where(total == 0.0, 1.0, total)[:, None]
    to = token * HEADS + head
    if SPLIT:
        to = (tl.program_id(0).to(tl.int64) * QUERIES + local) * HEADS + head
        tl.store(sums + to, top + tl.log2(total), mask=used)
    target = out + to[:, None] * D_V + wide[None, :]
    tl.store(target, cast(acc, out.dtype.element_ty), mask=used[:, None] & (wide < D_V)[None, :])


@triton.jit(do_not_specialize=["num_merges"])
def merge_kernel(
    parts: Tile,
    sums: Tile,
    out: Tile,
    merges: Tile,
    num_merges: Tile,
    HEADS: tl.constexpr,
    D_V: tl.constexpr,
    QUERIES: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_V: tl.constexpr,
) -> None:
    """Fold the partial results of query rows. Grid: rows x HEADS, BLOCK_R of them a program.

    `parts` and `sums` are what `segment_kernel` left, `out` is [tokens, HEADS, D_V], `merges` int32
    [num_merges, 4]. A row without parts (padding) becomes zeros.
    """
    pair = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    merge = merges + pair // HEADS * 4
    head = pair % HEADS
    real = pair // HEADS < num_merges
    first = tl.load(merge + 1, mask=real, other=0).to(tl.int64)[:, None]
    count = tl.load(merge + 2, mask=real, other=0)
    wide = tl.arange(0, BLOCK_V)
    top = tl.full([BLOCK_R], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    acc = tl.zeros([BLOCK_R, BLOCK_V], tl.float32)
    for start in range(0, tl.max(count, 0), BLOCK_P):
        index = (start + tl.arange(0, BLOCK_P))[None, :]
        seen = index < count[:, None]
        row = (first + index * QUERIES) * HEADS + head[:, None]
        part_sums = tl.load(sums + row, mask=seen, other=float("-inf"))
        there = seen[:, :, None] & (wide < D_V)[None, None, :]
        part = tl.load(parts + row[:, :, None] * D_V + wide[None, None, :], mask=there, other=0.0)
        higher = tl.maximum(top, tl.max(part_sums, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        weights = tl.exp2(part_sums - base[:, None])
        fade = tl.exp2(top - base)
        acc = acc * fade[:, None] + tl.sum(weights[:, :, None] * part, 1)
        total = total * fade + tl.sum(weights, 1)
        top = higher
    token = tl.load(merge, mask=real, other=0).to(tl.int64)
    target = out + (token * HEADS + head)[:, None] * D_V + wide[None, :]
    there = real[:, None] & (wide < D_V)[None, :]
    acc = acc / tl.where(count > 0, total, 1.0)[:, None]
    tl.store(target, cast(acc, out.dtype.element_ty), mask=there)
