"""Reading fields of untrusted JSON: a wrong type is a `TrajectoryError` that says where."""

from __future__ import annotations

from typing import Any, TypeVar

from leyline_agent.errors import TrajectoryError

__all__ = ["items", "mapping", "maybe", "mappings", "text"]

T = TypeVar("T")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """`value`, which must be a JSON object."""
    return _typed(value, dict, where, "an object")


def items(value: Any, where: str) -> list[Any]:
    """`value`, which must be a JSON array; a missing one is empty."""
    return [] if value is None else _typed(value, list, where, "an array")


def mappings(value: Any, where: str) -> list[dict[str, Any]]:
    """`value`, which must be an array of objects; a missing one is empty."""
    return [mapping(item, f"{where}[{index}]") for index, item in enumerate(items(value, where))]


def text(value: Any, where: str) -> str:
    """`value`, which must be a string; a missing one is empty."""
    return "" if value is None else _typed(value, str, where, "a string")


def maybe(value: Any, kind: type[T]) -> T | None:
    """`value` if it is of the kind, else None: for bookkeeping nobody depends on."""
    return value if isinstance(value, kind) else None


def _typed(value: Any, kind: type[T], where: str, expected: str) -> T:
    if not isinstance(value, kind):
        raise TrajectoryError(f"{where}: expected {expected}, found {type(value).__name__}")
    return value
