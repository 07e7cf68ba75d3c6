"""What SGLang's plug-in hook calls: makes `--radix-cache-backend leyline` known.

The hook runs in the launcher before it starts the engine's processes, and again in each of them,
so a secret that the launcher puts into the environment is shared by the ranks of one machine.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

from leyline_agent.errors import AdapterError

__all__ = ["BACKEND", "SECRET", "register"]

BACKEND = "leyline"
SECRET = "LEYLINE_SGLANG_SECRET"


def register() -> None:
    """Register the backend. Nothing changes for a server that does not ask for it."""
    from sglang.srt.mem_cache.registry import register_radix_cache_backend

    os.environ.setdefault(SECRET, secrets.token_hex(32))
    register_radix_cache_backend(BACKEND, _make)


def _make(context: Any) -> Any:
    """The cache for one scheduler; refuses releases of SGLang that it does not fit."""
    import sglang

    from leyline_adapters.sglang import versions

    versions.check(sglang.__version__)
    secret = os.environ.get(SECRET, "")
    if not secret:
        raise AdapterError(
            f"{SECRET} is not set in this process; set it to the same random text on every machine"
        )
    from leyline_adapters.sglang.cache import build

    return build(context, secret.encode())
