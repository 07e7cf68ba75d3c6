"""The connector's scheduler side: what each request may reuse, under whose name, and from where.

It lives in vLLM's scheduler, in one process whatever the number of workers. Loads are
asynchronous: a request waits while its KV is copied, its blocks enter the prefix cache when every
worker has succeeded, and those that a worker could not fill are computed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from leyline_adapters.vllm.blocks import BlockKeeper, Held, Pool
from leyline_adapters.vllm.claims import Verified, verify
from leyline_adapters.vllm.lineage import Mark, fork_name, inherited, namespaced
from leyline_adapters.vllm.refusals import Refusal, of_request
from leyline_adapters.vllm.sources import Home, Source, SourceTable
from leyline_adapters.vllm.transfer import Load
from leyline_adapters.vllm.turns import Turn, joined, planned
from leyline_adapters.vllm.wire import KEY, Ask, Told
from leyline_agent.receipt import Reason

__all__ = ["SchedulerSide"]

log = logging.getLogger("leyline.vllm")

_NOT_READY = Refusal(
    Reason.ENGINE_CANNOT_SPLICE,
    "the workers have not said that they can move keys; is another KV connector beside this one?",
)


class SchedulerSide:
    """Serves the asks of requests; a request without one passes through untouched.

    Args:
        block_size: tokens a block.
        max_model_len: the longest request; room for one is never pinned away.
        share: of the pool's blocks that may be pinned for sources.
        refusal: why this server splices nothing, if it does not; it begins once workers are ready.
    """

    def __init__(
        self, block_size: int, max_model_len: int, share: float, refusal: Refusal | None
    ) -> None:
        self.block_size = block_size
        self.refusal: Refusal | None = refusal or _NOT_READY
        self._longest = -(-max_model_len // block_size)
        self._share = share
        self._secret = secrets.token_bytes(32)
        self._turns: dict[str, Turn] = {}
        self._loads: list[Load] = []
        self._loading: dict[str, list[Held]] = {}
        self._planned: list[Turn] = []
        self._pool: Pool | None = None
        self._sources: SourceTable | None = None

    def bind(self, pool: Pool) -> None:
        """Take the pool whose blocks are held."""
        self._pool = pool
        total = len(pool.blocks) - 1  # One block is vLLM's own, for nothing.
        budget = max(0, min(int(total * self._share), total - self._longest))
        self._sources = SourceTable(BlockKeeper(pool), self.block_size, budget)

    def workers_said(self, refusals: Sequence[Refusal | None]) -> None:
        """Every worker has said why it cannot move keys, or None."""
        if self.refusal is _NOT_READY and refusals:
            self.refusal = next((one for one in refusals if one is not None), None)

    @property
    def sources(self) -> SourceTable:
        """The sources held."""
        if self._sources is None:
            raise RuntimeError("the block pool is not bound yet")
        return self._sources

    # A request arrives.

    def admit(self, request: Any) -> None:
        """Read what a request asks, verify it, and namespace its blocks; before it is scheduled."""
        params = request.kv_transfer_params
        if not isinstance(params, Mapping) or KEY not in params:
            return
        try:
            ask = Ask.model_validate(params[KEY])
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"]))
            nothing = Ask(session="-", keep=False)
            turn = Turn(("", ""), nothing, Verified(), refused=True)
            turn.blame(Reason.INVALID_EDIT, f"{KEY}.{where}: {problem['msg']}")
            self._turns[request.request_id] = turn
            return
        self._turns[request.request_id] = self._turn(request, ask)

    def _turn(self, request: Any, ask: Ask) -> Turn:
        owner = (request.cache_salt or "", ask.session)
        refusal = self.refusal or of_request(request)
        if refusal is not None:
            turn = Turn(owner, ask, Verified(), refused=True)
            turn.blame(refusal.reason, refusal.detail)
            return turn
        sources = self.sources
        verified = verify(request.prompt_token_ids, ask, lambda name: sources.find(name, owner))
        turn = Turn(owner, ask, verified)
        if verified.reason is not Reason.ASKED:
            turn.blame(verified.reason, verified.detail)
        turn.marks = self._marks(turn)
        if turn.marks:
            _rename(request, turn.marks, self._hash_block_size)
        return turn

    @property
    def _hash_block_size(self) -> int:
        return int(getattr(self._pool, "hash_block_size", self.block_size))

    def _marks(self, turn: Turn) -> tuple[Mark, ...]:
        verified = turn.verified
        parent = verified.parent
        marks = inherited(parent.marks if parent is not None else (), verified.shared)
        if parent is not None and marks and verified.leaves and verified.fork != verified.shared:
            # The same tokens again have the lineage's hashes, and would be found, not computed.
            left = [(parent.handle, 0, verified.shared, 0)]
            marks = self._forked(turn, marks, verified.shared, left)
        if verified.fork is None:
            return marks
        claimed = [
            (claim.source.handle, claim.start, claim.end, claim.at)
            for claim in verified.claims
            if claim.at >= verified.fork
        ]
        return self._forked(turn, marks, verified.fork, claimed)

    def _forked(
        self, turn: Turn, marks: tuple[Mark, ...], start: int, why: Sequence[object]
    ) -> tuple[Mark, ...]:
        return (*marks, Mark(start, fork_name(self._secret, turn.owner, marks, why)))

    # It is scheduled.

    def matched(self, request: Any, num_local: int) -> int:
        """How many tokens behind the first `num_local` can be loaded; asked again is planned again.

        What is planned is pinned until the load is over; for this step if no load comes of it.
        """
        turn = self._turns.get(request.request_id)
        if turn is None:
            return 0
        self._unplan(turn)
        turn.local = num_local
        if turn.refused or turn.failed or not turn.verified.claims:
            return 0
        limit = min(request.num_prompt_tokens, request.num_tokens - 1)
        pieces, gone = planned(turn.verified.claims, num_local, limit, self.block_size)
        if gone:
            turn.blame(Reason.EVICTED, "KV of a source made room for other requests")
        if not pieces:
            return 0
        held = self._blocks_of(pieces)
        pool = self.sources.keeper.pool
        room = pool.get_num_free_blocks() - sum(one.is_free for one in held)
        if room < -(-(request.num_tokens + 1) // self.block_size):
            turn.blame(Reason.EVICTED, "no room to hold a source beside the copy of it")
            return 0
        self.sources.keeper.pin(held)
        turn.pieces, turn.pinned = tuple(pieces), held
        self._planned.append(turn)
        return sum(piece.length for piece in pieces)

    def _blocks_of(self, pieces: Iterable[Any]) -> list[Held]:
        found: dict[Held, None] = {}
        for piece in pieces:
            held = piece.home.blocks[piece.position // self.block_size]
            if held is not None:
                found[held] = None
        return list(found)

    def _unplan(self, turn: Turn) -> None:
        self.sources.keeper.unpin(turn.pinned)
        turn.pieces, turn.pinned = (), []

    def allocated(self, request: Any, block_ids: Sequence[int], num_external: int) -> None:
        """The request got its blocks; its load goes out with this step."""
        turn = self._turns.get(request.request_id)
        if turn is None:
            return
        if num_external > 0 and turn.pieces:
            copies = joined(turn.pieces, self.block_size)
            self._loads.append(Load(request.request_id, tuple(block_ids), copies))
            self._loading.setdefault(request.request_id, []).extend(turn.pinned)
            turn.pieces, turn.pinned = (), []
        else:
            num_external = 0
            self._unplan(turn)
        if turn.reused is None:
            turn.reused = turn.local + num_external
        elif num_external:  # Preempted, and resumed with more than it had found at first.
            turn.reused = max(turn.reused, turn.local + num_external)

    def take_loads(self) -> tuple[Load, ...]:
        """The loads of this step."""
        for turn in self._planned:
            self._unplan(turn)  # Its request got no room.
        self._planned.clear()
        loads, self._loads = tuple(self._loads), []
        return loads

    # Workers answer.

    def loaded(self, request_ids: Iterable[str]) -> None:
        """Loads are over, whether or not they succeeded."""
        for request_id in request_ids:
            self.sources.keeper.unpin(self._loading.pop(request_id, []))

    def timed(self, times: Mapping[str, float]) -> None:
        """How long loads took, in microseconds."""
        for request_id, microseconds in times.items():
            if (turn := self._turns.get(request_id)) is not None:
                turn.splice_us += microseconds

    def failed(self, errors: Mapping[str, str]) -> None:
        """A worker could not copy: what these requests claimed is prefilled."""
        for request_id, error in errors.items():
            log.warning("leyline: a splice failed, its request is prefilled: %s", error)
            turn = self._turns.get(request_id)
            if turn is not None:
                turn.failed = True
                turn.reused = min(turn.reused or 0, turn.local)
                turn.blame(Reason.ENGINE_CANNOT_SPLICE, f"a worker failed: {error}")

    # It ends.

    def finished(self, request: Any, block_ids: Sequence[int], *, aborted: bool) -> Told | None:
        """The receipt of a request that asked; its KV is held if it wanted that."""
        turn = self._turns.pop(request.request_id, None)
        if turn is None:
            return None
        handle = ""
        if not turn.refused and not aborted:
            handle = self._keep(turn, request, block_ids) if turn.ask.keep else ""
            self.sources.release(turn.ask.release, turn.owner)
        if request.num_preemptions:
            turn.detail = (turn.detail + f"; preempted {request.num_preemptions} times").lstrip(
                "; "
            )
        return turn.told(request.num_prompt_tokens, handle)

    def _keep(self, turn: Turn, request: Any, block_ids: Sequence[int]) -> str:
        tokens = list(request.all_token_ids)
        held = min(request.num_computed_tokens, len(tokens) - 1, len(block_ids) * self.block_size)
        if held <= 0:
            return ""
        blocks = self.sources.keeper.hold(block_ids[: -(-held // self.block_size)])
        home = Home(list(blocks))
        source = Source(turn.owner, tokens, held, turn.marks, turn.spliced_from, home, turn.moved())
        return self.sources.keep(source)

    def reset(self) -> None:
        """Give every source up: vLLM's cache is being reset."""
        self.sources.clear()


def _rename(request: Any, marks: Sequence[Mark], block_size: int) -> None:
    """Give a request's blocks the hashes of its lineage."""
    if request._block_hasher is None:
        return
    del request.block_hashes[marks[0].start // block_size :]
    request._block_hasher = namespaced(request._block_hasher, marks, block_size)
    request.update_block_hashes()
