"""What the connector itself does for a request that asks nothing, in microseconds.

    PYTHONPATH=.:adapters .venvs/vllm/bin/python benchmarks/vllm_hooks.py

Every hook of a scheduler step, and those that come once a request: servers with and without the
connector, as vllm_splice.py compares them, cannot be told apart by so little. vLLM's own part in
having a connector (it carries metadata from step to step) is not in it.
"""

from __future__ import annotations

import json
import timeit
from types import SimpleNamespace

from leyline_adapters.vllm.connector import LeylineConnector
from leyline_adapters.vllm.scheduling import SchedulerSide
from leyline_adapters.vllm.working import WorkerSide

LAYERS = 30
CALLS = 20_000


def bare() -> LeylineConnector:
    """A connector without an engine around it."""
    made = LeylineConnector.__new__(LeylineConnector)
    made.scheduler_side = SchedulerSide(32, 8192, 0.25, None)
    made.scheduler_side.workers_said([None])
    made.worker_side = WorkerSide(None)
    return made


def main() -> None:
    """Time a step, and what comes once a request."""
    connector = bare()
    request = SimpleNamespace(request_id="r", kv_transfer_params=None, num_preemptions=0, status=1)
    blocks = SimpleNamespace(get_block_ids=lambda: ([1, 2],))
    said = SimpleNamespace(kv_connector_worker_meta=None, finished_recving=None)

    def step() -> None:
        connector.bind_connector_metadata(connector.build_connector_meta(None))
        connector.start_load_kv(None)
        for _ in range(LAYERS):
            connector.wait_for_layer_load("")
            connector.save_kv_layer("", None, None)
        connector.wait_for_save()
        connector.get_finished(set())
        connector.get_block_ids_with_load_errors()
        connector.build_connector_worker_meta()
        connector.update_connector_output(said)

    def once() -> None:
        connector.on_new_request(request)
        connector.get_num_new_matched_tokens(request, 0)
        connector.update_state_after_alloc(request, blocks, 0)
        connector.request_finished_all_groups(request, ([1, 2],))

    for one in (step, once):
        timeit.timeit(one, number=CALLS // 10)
    found = {}
    for one in (step, once):
        best = min(timeit.repeat(one, number=CALLS, repeat=5))
        found[f"{one.__name__}_us"] = round(best / CALLS * 1e6, 2)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
