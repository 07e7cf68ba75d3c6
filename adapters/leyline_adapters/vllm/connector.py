"""The class that vLLM loads: `--kv-transfer-config` names it, with this module's path.

    {"kv_connector": "LeylineConnector", "kv_role": "kv_both",
     "kv_connector_module_path": "leyline_adapters.vllm.connector",
     "kv_load_failure_policy": "recompute",
     "kv_connector_extra_config": {"pinned_share": 0.25}}

vLLM makes one for its scheduler and one in each worker. This file only translates; the scheduler's
part is in `scheduling.py`, the workers' in `working.py`, and they share `transfer.py`.

`kv_connector_extra_config`: `pinned_share` (default 0.25) of the KV blocks may be pinned for
sources, `model_types` adds models to those whose keys move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import vllm

from leyline_adapters.vllm import versions

versions.check(vllm.__version__)  # Before what other releases have elsewhere, or not at all.

from vllm.distributed.kv_transfer import get_kv_transfer_group  # noqa: E402
from vllm.distributed.kv_transfer.kv_connector.v1.base import (  # noqa: E402
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorWorkerMetadata,
    SupportsHMA,
)
from vllm.v1.request import RequestStatus  # noqa: E402

from leyline_adapters.vllm.refusals import Refusal, of_server  # noqa: E402
from leyline_adapters.vllm.scheduling import SchedulerSide  # noqa: E402
from leyline_adapters.vllm.transfer import Load  # noqa: E402
from leyline_adapters.vllm.wire import KEY  # noqa: E402
from leyline_adapters.vllm.working import WorkerSide  # noqa: E402
from leyline_agent.receipt import Reason  # noqa: E402

__all__ = ["LeylineConnector"]

PINNED_SHARE = 0.25
_BESIDE_ANOTHER = Refusal(Reason.ENGINE_CANNOT_SPLICE, "another KV connector is beside this one")


@dataclass
class Loads(KVConnectorMetadata):
    """Scheduler to workers: the copies of one step."""

    loads: tuple[Load, ...] = ()


@dataclass
class Report(KVConnectorWorkerMetadata):
    """Workers to scheduler: how long copies took, and which failed."""

    times: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def aggregate(self, other: KVConnectorWorkerMetadata) -> Report:
        """Several workers' reports: the slowest time, any error."""
        if not isinstance(other, Report):
            return self
        slowest = {
            name: max(self.times.get(name, 0.0), other.times.get(name, 0.0))
            for name in {**self.times, **other.times}
        }
        return Report(slowest, {**self.errors, **other.errors})


@dataclass
class Ready(KVConnectorHandshakeMetadata):
    """A worker to the scheduler, once: whether it can move its model's keys."""

    refusal: Refusal | None = None


class LeylineConnector(KVConnectorBase_V1, SupportsHMA):
    """Serves what `kv_transfer_params["leyline"]` asks; other requests pass through untouched."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        # The default would fail a request whose splice failed, instead of prefilling it.
        self._kv_transfer_config.kv_load_failure_policy = "recompute"
        if role == KVConnectorRole.SCHEDULER:
            self.scheduler_side = self._make_scheduler_side()
        else:
            self.worker_side = WorkerSide(vllm_config)

    def _make_scheduler_side(self) -> SchedulerSide:
        config, caches = self._vllm_config, self._kv_cache_config
        groups = caches.kv_cache_groups  # Of several, or none, nothing is spliced.
        return SchedulerSide(
            block_size=groups[0].kv_cache_spec.block_size if groups else 1,
            max_model_len=config.model_config.max_model_len,
            share=float(
                self._kv_transfer_config.get_from_extra_config("pinned_share", PINNED_SHARE)
            ),
            refusal=of_server(config, caches),
        )

    # In the scheduler.

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """Take the block pool."""
        self.scheduler_side.bind(gpu_block_pool)

    def set_xfer_handshake_metadata_pp_aware(
        self, metadata: Mapping[tuple[int, int], KVConnectorHandshakeMetadata]
    ) -> None:
        """Every worker has said whether it can move its model's keys."""
        said = [one.refusal for one in metadata.values() if isinstance(one, Ready)]
        self.scheduler_side.workers_said(said)

    def on_new_request(self, request: Any) -> None:
        """Before a request is scheduled."""
        self.scheduler_side.admit(request)

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """Tokens to load behind vLLM's own cache hit, and that they come asynchronously."""
        found = self.scheduler_side.matched(request, num_computed_tokens)
        return found, found > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """A request has its blocks."""
        self.scheduler_side.allocated(
            request, _of_one_group(blocks.get_block_ids()), num_external_tokens
        )

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """This step's copies."""
        return Loads(self.scheduler_side.take_loads())

    def update_connector_output(self, connector_output: Any) -> None:
        """What the workers say of a step."""
        report = connector_output.kv_connector_worker_meta
        if isinstance(report, Report):
            self.scheduler_side.failed(report.errors)
            self.scheduler_side.timed(report.times)
        self.scheduler_side.loaded(connector_output.finished_recving or ())

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """The receipt; its blocks need no longer life, sources hold their own references."""
        aborted = request.status in (
            RequestStatus.FINISHED_ABORTED,
            RequestStatus.FINISHED_ERROR,
            RequestStatus.FINISHED_IGNORED,
        )
        own = _of_one_group(block_ids)
        told = self.scheduler_side.finished(request, own, aborted=aborted)
        return False, None if told is None else {KEY: told.model_dump()}

    def request_finished(
        self, request: Any, block_ids: list[int]
    ) -> tuple[bool, dict[str, Any] | None]:
        """The same, where one connector beside this one knows no groups."""
        return self.request_finished_all_groups(request, (block_ids,))

    def reset_cache(self) -> bool:
        """Give up every source; a pool with pinned blocks cannot be reset before that."""
        self.scheduler_side.reset()
        return True

    # In a worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Learn how the layers keep their KV."""
        self.worker_side.register(kv_caches)

    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata:
        """Whether this worker can move its model's keys."""
        if get_kv_transfer_group() is not self:
            # Loads may be the other's, and blocks may be handed on: they are not ours to move.
            return Ready(_BESIDE_ANOTHER)
        return Ready(self.worker_side.refusal)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Carry out this step's copies."""
        metadata = self._get_connector_metadata()
        if isinstance(metadata, Loads):
            self.worker_side.run(metadata.loads)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Loads that are over."""
        return None, self.worker_side.take_finished() or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks of loads that failed."""
        return self.worker_side.take_invalid()

    def build_connector_worker_meta(self) -> KVConnectorWorkerMetadata | None:
        """Times and errors of this step's loads."""
        times, errors = self.worker_side.take_report()
        return Report(times, errors) if times or errors else None

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Nothing: loads are over when `start_load_kv` returns."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: Any, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Nothing: KV stays in vLLM's blocks."""

    def wait_for_save(self) -> None:
        """Nothing is saved."""


def _of_one_group(block_ids: Sequence[list[int]]) -> list[int]:
    """A request's blocks; models with several kinds of layers have a list for each, to refuse."""
    return block_ids[0] if len(block_ids) == 1 else []
