"""KV store and rope shift: shapes of real models, each in every type."""

from __future__ import annotations

from collections.abc import Iterator

from aot import Entry

from leyline_agent.serving.kernels import kv_store_kernel, rope_shift_kernel

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
    strides = ("keys_slot", "keys_head", "key_head", "key_token")
    strides_v = ("values_slot", "values_head", "value_head", "value_token")
    return Entry(
        f"kv_store {model} {dtype}",
        kv_store_kernel.kv_store_kernel,
        dict.fromkeys(("keys", "values", "key", "value"), f"*{dtype}")
        | {"slots": "*i64", "num_rows": "i32"}
        | dict.fromkeys((*strides, *strides_v), "i64"),
        kv_store_kernel.constants(heads, d, d_v or d)
        | ({"values": None, "value": None} if d_v is None else {}),
        aligned=(*strides, *strides_v),
        small=small,
    )


def rope_shift(
    model: str, dtype: str, heads: int, d: int, rotary: int, interleaved: bool, way: str
) -> Entry:
    rest = 0 if way == "in place" else d - rotary
    strides = ("keys_row", "keys_head", "out_row", "out_head")
    small = (model, dtype, interleaved) in {
        ("llama-8b", "bf16", False),
        ("deepseek", "bf16", True),
    } or (model, dtype, interleaved, way) == ("phi-2", "fp32", False, "scatter")
    return Entry(
        f"rope_shift {model} {dtype} {'interleaved' if interleaved else 'half'} {way}",
        rope_shift_kernel.rope_shift_kernel,
        dict.fromkeys(("keys", "out"), f"*{dtype}")
        | dict.fromkeys(("cos", "sin"), "*fp64" if dtype == "fp32" else "*fp32")
        | dict.fromkeys(("source", "target", "turn"), "*i64")
        | {"num_rows": "i32"}
        | dict.fromkeys(strides, "i64"),
        rope_shift_kernel.constants(heads, rotary, rest, interleaved=interleaved)
        | ({"target": None} if way == "gather" else {}),
        aligned=strides,
        small=small,
    )
