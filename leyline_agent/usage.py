"""Usage: what providers say a call cost, and what their prompt caches did, in one form.

docs/providers.md has the table. What a provider leaves out is None, which is not 0: some have no
cache, some do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Usage", "read"]


class Usage(NamedTuple):
    """Tokens of one call.

    Attributes:
        prompt: all tokens of the prompt, those from the cache included.
        completion: tokens of the reply; None where it is not told.
        cache_read: tokens of it that the provider's cache served; None where it is not told.
        cache_written: tokens of it that went into the cache; None where it is not told.
    """

    prompt: int
    completion: int | None = None
    cache_read: int | None = None
    cache_written: int | None = None


def read(usage: Mapping[str, Any] | None) -> Usage | None:
    """What a response's `usage` says; None where it counts no prompt tokens."""
    if usage is None:
        return None
    if _count(usage.get("prompt_tokens")) is None:
        return _of_input(usage)
    details = _details(usage, "prompt_tokens_details")
    return Usage(
        prompt=usage["prompt_tokens"],
        completion=_count(usage.get("completion_tokens")),
        cache_read=_first(
            details.get("cached_tokens"),
            usage.get("cache_read_input_tokens"),
            usage.get("prompt_cache_hit_tokens"),
        ),
        cache_written=_first(
            details.get("cache_write_tokens"),
            details.get("cache_creation_tokens"),
            usage.get("cache_creation_input_tokens"),
        ),
    )


def _of_input(usage: Mapping[str, Any]) -> Usage | None:
    """Those that count input and output tokens: Anthropic counts the cached ones apart."""
    given = _count(usage.get("input_tokens"))
    if given is None:
        return None
    completion = _count(usage.get("output_tokens"))
    if "input_tokens_details" in usage:
        details = _details(usage, "input_tokens_details")
        return Usage(given, completion, _count(details.get("cached_tokens")))
    cache_read = _count(usage.get("cache_read_input_tokens"))
    written = _count(usage.get("cache_creation_input_tokens"))
    return Usage(given + (cache_read or 0) + (written or 0), completion, cache_read, written)


def _details(usage: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = usage.get(name)
    return found if isinstance(found, Mapping) else {}


def _first(*told: Any) -> int | None:
    """The first figure that is one."""
    return next((count for count in map(_count, told) if count is not None), None)


def _count(told: Any) -> int | None:
    return told if isinstance(told, int) and told >= 0 and not isinstance(told, bool) else None
