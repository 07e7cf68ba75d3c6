"""KV store and rope shift: shapes of real models, each in every type."""

from __future__ import annotations

from collections.abc import Iterator

from aot import Entry

from leyline_agent.serving.kernels.kv_store_kernel import kv_store_kernel
from leyline_agent.serving.kernels.rope_shift_kernel import rope_shift_kernel

DTYPES = ("bf16", "fp16", "fp32")
STORES = {  # kv heads, d, d_v
    "llama-8b": (8, 128, 128),
    "smollm2": (3, 64, 64),
    "phi-2": (32, 80, 80),
    "phi-3": (32, 96, 96),
    "gemma": (1, 256, 256),
    "deepseek": (1, 576, None),
    "expanded-mla": (16, 192, 128),
}
"""The representative set has the first, the odd one and MLA's."""

KEYS = {  # kv heads, d, rotary
    "llama-8b": (8, 128, 128),
    "smollm2": (3, 64, 64),
    "phi-2": (32, 80, 32),
    "phi-3": (32, 96, 96),
    "glm": (2, 128, 64),
    "gemma": (1, 256, 256),
    "deepseek": (1, 576, 64),
}


def entries() -> Iterator[Entry]:
    for dtype in DTYPES:
        for name, shape in STORES.items():
            small = name in {"llama-8b", "phi-2", "deepseek"} and dtype == "bf16"
            yield kv_store(name, dtype, *shape, small=small)
        for name, key in KEYS.items():
            for interleaved in (False, True):
                for way in ("gather", "scatter", "in place"):
                    yield rope_shift(name, dtype, *key, interleaved, way)


def kv_store(model: str, dtype: str, heads: int, d: int, d_v: int | None, *, small: bool) -> Entry:
    block, block_v = power_of_2(d), power_of_2(d_v or d)
    strides = ("keys_slot", "keys_head", "key_head", "key_token")
    strides_v = ("values_slot", "values_head", "value_head", "value_token")
    return Entry(
        f"kv_store {model} {dtype}",
        kv_store_kernel,
        dict.fromkeys(("keys", "values", "key", "value"), f"*{dtype}")
        | {"slots": "*i64", "num_rows": "i32"}
        | dict.fromkeys((*strides, *strides_v), "i64"),
        {"HEADS": heads, "D": d, "D_V": d_v or d}
        | {"ROWS": 4096 // max(block, block_v), "BLOCK_D": block, "BLOCK_V": block_v}
        | ({"values": None, "value": None} if d_v is None else {}),
        aligned=(*strides, *strides_v),
        small=small,
    )


def rope_shift(
    model: str, dtype: str, heads: int, d: int, rotary: int, interleaved: bool, way: str
) -> Entry:
    rest = 0 if way == "in place" else d - rotary
    block, block_rest = power_of_2(rotary // 2), power_of_2(rest)
    strides = ("keys_row", "keys_head", "out_row", "out_head")
    small = (model, dtype, interleaved) in {
        ("llama-8b", "bf16", False),
        ("deepseek", "bf16", True),
    } or (model, dtype, interleaved, way) == ("phi-2", "fp32", False, "scatter")
    return Entry(
        f"rope_shift {model} {dtype} {'interleaved' if interleaved else 'half'} {way}",
        rope_shift_kernel,
        dict.fromkeys(("keys", "out"), f"*{dtype}")
        | dict.fromkeys(("cos", "sin"), "*fp64" if dtype == "fp32" else "*fp32")
        | dict.fromkeys(("source", "target", "turn"), "*i64")
        | {"num_rows": "i32"}
        | dict.fromkeys(strides, "i64"),
        {"HEADS": heads, "ROTARY": rotary, "REST": rest, "BLOCK": block, "BLOCK_REST": block_rest}
        | {"ROWS": 2048 // max(block, block_rest // 2), "INTERLEAVED": interleaved}
        | ({"target": None} if way == "gather" else {}),
        aligned=strides,
        small=small,
    )


def power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length() if n else 0
