"""Segment attention: decode, extend and the merge, in the heads of real models."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from aot import Entry

from leyline_agent.serving.kernels.segment_blocks import HeadShape, choose_blocks, constants
from leyline_agent.serving.kernels.segment_kernel import merge_kernel, segment_kernel

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
HEADS = {  # the heads, the rotated dimensions
    "llama-8b": (HeadShape(32, 8, 128, 128), 128),
    "smollm2": (HeadShape(9, 3, 64, 64), 64),
    "phi-2": (HeadShape(32, 32, 80, 80), 32),
    "phi-3": (HeadShape(32, 32, 96, 96), 96),
    "expanded-mla": (HeadShape(16, 16, 192, 128), 64),
    "gemma": (HeadShape(8, 1, 256, 256), 256),
    "deepseek-lite": (HeadShape(16, 1, 576, 512, latent=True), 64),
    "deepseek-v3": (HeadShape(128, 1, 576, 512, latent=True), 64),
}
SMALL = {
    ("llama-8b", "bf16", "decode"),
    ("llama-8b", "bf16", "extend"),
    ("deepseek-v3", "bf16", "decode"),
    ("phi-2", "fp16", "decode"),
    ("smollm2", "fp32", "extend"),
}


def entries() -> Iterator[Entry]:
    for dtype in DTYPES:
        for name, (shape, rotary) in HEADS.items():
            for kind in ("decode", "extend"):
                entry = segment(name, dtype, shape, rotary, kind)
                yield entry._replace(small=(name, dtype, kind) in SMALL)
        yield merge(dtype, small=dtype == "bf16")
    # Nothing was moved and nothing is merged: what a plain server runs.
    plain = segment("llama-8b", "bf16", *HEADS["llama-8b"], "decode")
    constants = {**plain.constants, "TURNS": False, "SPANS": False, "SPLIT": False}
    types = {**plain.types, "out": "*bf16", "sums": "*bf16"}
    yield plain._replace(name="segment_plain", constants=constants, types=types, small=True)


def segment(model: str, dtype: str, shape: HeadShape, rotary: int, kind: str) -> Entry:
    """With everything switched on: turned queries and keys, spans, partial results."""
    blocks = choose_blocks(shape, DTYPES[dtype], decode=kind == "decode")
    strides = ("query_head", "query_token", "key_slot", "key_head", "value_slot", "value_head")
    tables = ("items", "runs", "spans", "positions")
    return Entry(
        f"segment_{kind} {model} {dtype}",
        segment_kernel,
        dict.fromkeys(("query", "keys", "values"), f"*{dtype}")
        | dict.fromkeys(("out", "sums", "tables"), "*fp32")
        | dict.fromkeys(tables, "*i32")
        | {"scale": "fp32"}
        | dict.fromkeys(("window", "num_spans", "num_rows", *strides), "i32"),
        constants(shape, blocks, rotary, interleaved=shape.latent)
        | {"TURNS": True, "SPANS": True, "SPLIT": True},
        {"num_warps": blocks.warps, "num_stages": blocks.stages},
        aligned=strides,
    )


def merge(dtype: str, *, small: bool) -> Entry:
    return Entry(
        f"merge {dtype}",
        merge_kernel,
        {"parts": "*fp32", "sums": "*fp32", "out": f"*{dtype}", "merges": "*i32"}
        | {"num_merges": "i32"},
        {"HEADS": 32, "D_V": 128, "QUERIES": 1, "BLOCK_R": 1, "BLOCK_P": 16, "BLOCK_V": 128},
        small=small,
    )
