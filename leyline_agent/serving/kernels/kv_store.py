"""KV store: scatter new keys and values into their slots.

    key   [kv_heads, total, d]     row i of every head
    keys  [slots, kv_heads, d]     goes to slot slots[i]

A page of 16 slots is 16 neighbours: pages [pages, 16, kv_heads, d] are the same memory as
slots [pages * 16, kv_heads, d], and `page_slots` is the view that says so.
"""

from __future__ import annotations

from torch import Tensor

from leyline_agent.errors import EngineError
from leyline_agent.serving.kernels.checks import check_slots, check_tensors

__all__ = ["kv_store", "kv_store_reference", "page_slots"]


def kv_store(
    keys: Tensor, values: Tensor | None, key: Tensor, value: Tensor | None, slots: Tensor
) -> None:
    """Write new rows into their slots, in place, by the Triton kernel.

    Args:
        keys: the layer's store [slots, kv_heads, d]; float32, float16 or bfloat16.
        values: the layer's store [slots, kv_heads, d_v]; None where nothing is to be written,
            as with MLA, whose values are a view of the keys.
        key: new keys [kv_heads, total, d] of the same type. Any strides but the last.
        value: new values [kv_heads, total, d_v]; None when `values` is.
        slots: int64 [total], all different. Checked where they are on the host. On a GPU that
            would be a synchronisation: `check_slots` is for who makes them, and a negative slot
            there means that the row is not stored (padding of a captured graph).

    Raises:
        EngineError: a tensor of another type, device or shape, or a slot that is not there.
    """
    _check(keys, key, slots, "key")
    if values is not None and value is not None:
        _check(values, value, slots, "value")
        check_tensors("kv_store", keys=keys, values=values)
        if key.shape[0] != value.shape[0]:
            raise EngineError(
                f"kv_store: key has {key.shape[0]} heads and value {value.shape[0]}; pass one of "
                "them at a time"
            )
    elif values is not value:
        raise EngineError("kv_store: values and value go together; pass both or neither")
    if slots.device.type == "cpu":
        check_slots("slots", slots.numpy(), len(keys))
    if len(slots):
        from leyline_agent.serving.kernels.kv_store_kernel import launch

        launch(keys, values, key, value, slots)


def kv_store_reference(
    keys: Tensor, values: Tensor | None, key: Tensor, value: Tensor | None, slots: Tensor
) -> None:
    """The same with torch's indexing."""
    keys[slots] = key.transpose(0, 1)
    if values is not None and value is not None:
        values[slots] = value.transpose(0, 1)


def page_slots(pages: Tensor) -> Tensor:
    """Pages [pages, page_size, kv_heads, d] as slots [pages * page_size, kv_heads, d]: a view.

    Token i of page p is slot p * page_size + i.

    Raises:
        EngineError: the pages do not lie one behind the other, slot after slot.
    """
    if pages.dim() == 4 and pages.stride(0) == pages.shape[1] * pages.stride(1):
        return pages.flatten(0, 1)
    raise EngineError(
        f"page_slots: pages {tuple(pages.shape)} with strides {pages.stride()} are not runs of "
        "slots; lay them out as [pages, page_size, kv_heads, d]"
    )


def _check(store: Tensor, new: Tensor, slots: Tensor, name: str) -> None:
    check_tensors("kv_store", **{f"{name}s": store, name: new})
    if str(slots.dtype) != "torch.int64" or slots.device != store.device:
        raise EngineError(
            f"kv_store: slots are {slots.dtype} on {slots.device}; needed is torch.int64 on "
            f"{store.device}"
        )
    fits = store.dim() == new.dim() == 3 and slots.shape == new.shape[1:2]
    if not fits or store.shape[1:] != (new.shape[0], new.shape[2]):
        raise EngineError(
            f"kv_store: {name} {tuple(new.shape)} and slots {tuple(slots.shape)} do not fit "
            f"{name}s {tuple(store.shape)}; needed are [kv_heads, total, d], [total] and "
            "[slots, kv_heads, d]"
        )
