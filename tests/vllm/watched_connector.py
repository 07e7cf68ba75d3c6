"""The connector, with switches by which a test makes a worker fail.

A switch is a file in the folder $LEYLINE_TEST_SWITCHES: `fail` makes copies fail half-way, on the
rank it names or, when it is empty, on all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vllm.distributed import get_tensor_model_parallel_rank
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

from leyline_adapters.vllm.connector import LeylineConnector
from leyline_adapters.vllm.working import Rows, WorkerSide


class FailingWorker(WorkerSide):
    """Fails in the middle of a copy while the switch is there."""

    def copy_layer(self, number: int, rows: Rows) -> None:
        """One layer; the switch is looked at half-way."""
        switch = Path(os.environ["LEYLINE_TEST_SWITCHES"]) / "fail"
        if number == len(self._layers) // 2 and switch.exists():
            if switch.read_text() in ("", str(get_tensor_model_parallel_rank())):
                raise RuntimeError("told to fail")
        super().copy_layer(number, rows)


class WatchedConnector(LeylineConnector):
    """The connector as it is, but for its worker."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        if role == KVConnectorRole.WORKER:
            self.worker_side = FailingWorker(vllm_config)
