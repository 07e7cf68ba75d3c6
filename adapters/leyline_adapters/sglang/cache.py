"""The radix cache: SGLang's own, which brings spliced KV into a space before it looks there.

    T        the tenant's tree: what plain prefills left, as always
    T|x      a space: a prefix copied from T, then tokens moved and turned, then what requests
             of that lineage computed behind them

A space is an extra key of the tree, so SGLang's own look-up, locking and eviction serve it, and no
request can reach it but through a handle. A splice copies: the slots in T stay as they are until
they are evicted. Imported inside SGLang only.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from sglang.srt.mem_cache.base_prefix_cache import (
    EvictParams,
    InsertParams,
    MatchPrefixParams,
    MatchResult,
)
from sglang.srt.mem_cache.radix_cache import RadixKey
from sglang.srt.mem_cache.registry import create_unified_radix_cache
from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache
from torch import Tensor

from leyline_adapters.sglang.ledger import Ledger, Owner, Plan
from leyline_adapters.sglang.moving import move
from leyline_adapters.sglang.spaces import Piece, as_tokens
from leyline_adapters.sglang.support import Movable, movable
from leyline_adapters.sglang.turns import Refusal, Turn, read_ask
from leyline_adapters.vllm.wire import KEY, Ask
from leyline_agent.receipt import Reason

__all__ = ["LeylineRadixCache", "build"]

# A copy that was evicted before its request was admitted is made once more.
TRIES = 2

_log = logging.getLogger("leyline.sglang")


def build(context: Any, secret: bytes) -> Any:
    """The cache for SGLang's scheduler; one that splices nothing where nothing can be moved."""
    able = movable(context)
    if isinstance(able, Refusal):
        _log.warning("Leyline's radix cache serves without splices: %s", able.detail)
    cache = create_unified_radix_cache(context, cache_class=LeylineRadixCache)
    if not isinstance(cache, LeylineRadixCache):
        raise TypeError(f"SGLang made a {type(cache).__name__} in place of Leyline's cache")
    cache.leyline(able, Ledger(secret), context.tp_worker.model_runner.forward_stream)
    return cache


class LeylineRadixCache(UnifiedRadixCache):
    """SGLang's radix cache with spaces of spliced KV."""

    _able: Movable | Refusal = Refusal(Reason.ENGINE_CANNOT_SPLICE, "not set up")

    def leyline(self, able: Movable | Refusal, ledger: Ledger, stream: Any) -> None:
        """Set up: SGLang makes a cache with arguments of its own."""
        self._able = able
        self._ledger = ledger
        self._stream = stream

    def match_prefix(self, params: MatchPrefixParams) -> MatchResult:
        """SGLang's look-up, in the request's space and with what it claims brought there."""
        req = params.req
        turn = None if req is None else self._turn(req)
        if req is None or turn is None:
            return super().match_prefix(params)
        waiting = not req.kv.holds_kv and not req.output_ids
        if waiting and turn.plan.pieces:
            self._bring(turn, params.key, req)
        key = params.key
        key = RadixKey(key.token_ids, req.extra_key, limit=key.limit, cache_salt=key.cache_salt)
        result = super().match_prefix(replace(params, key=key))
        if waiting:
            told = turn.told(result.device_prefix_len)
            req.customized_info = {**(req.customized_info or {}), KEY: [told.model_dump()]}
        return result

    def checkpoint(self, req: Any, *, up_to: int, **kwargs: Any) -> None:
        """SGLang's; a finished request with an ask becomes a source."""
        turn = getattr(req, "leyline_turn", None)
        tokens = req.full_untruncated_fill_ids[:up_to] if turn is not None else ()
        super().checkpoint(req, up_to=up_to, **kwargs)
        if turn is not None and turn.owner is not None and req.finished():
            self._ledger.keep(turn.owner, turn.plan, tokens)

    def reset(self) -> None:
        """SGLang's; a flushed cache has no sources either."""
        super().reset()
        if hasattr(self, "_ledger"):
            self._ledger.clear()

    def _turn(self, req: Any) -> Turn | None:
        turn: Turn | None = getattr(req, "leyline_turn", None)
        if turn is not None:
            return turn
        ask = read_ask(req.sampling_params.custom_params)
        if ask is None:
            return None
        refused = ask if isinstance(ask, Refusal) else self._refused(req)
        if refused is not None or isinstance(ask, Refusal):
            assert refused is not None
            plan = Plan("", reason=refused.reason, detail=refused.detail)
            turn = Turn(None, plan, req.origin_input_ids)
        else:
            turn = self._planned(req, ask)
        req.leyline_turn = turn
        return turn

    def _planned(self, req: Any, ask: Ask) -> Turn:
        owner = Owner(req.extra_key or "", req.cache_salt or "", ask.session)
        plan = self._ledger.plan(owner, req.rid, req.origin_input_ids, ask)
        turn = Turn(owner, plan, req.origin_input_ids)
        req.extra_key = turn.extra_key
        return turn

    def _refused(self, req: Any) -> Refusal | None:
        if isinstance(self._able, Refusal):
            return self._able
        for what in ("session", "multimodal_inputs", "input_embeds", "lora_id"):
            if getattr(req, what, None) is not None:
                detail = f"nothing is spliced in requests with {what.replace('_', ' ')}"
                return Refusal(Reason.ENGINE_CANNOT_SPLICE, detail)
        return None

    def _bring(self, turn: Turn, key: RadixKey, req: Any) -> None:
        """Copy what the pieces name into the turn's space, as far as it is not there."""
        space = turn.plan.space
        wanted = len(space.tokens)
        there, node = self._find(space.tokens, req.extra_key, key)
        if len(there) >= wanted or turn.tries >= TRIES:
            return
        turn.tries += 1
        started = time.perf_counter()
        with self._held(node) as nodes:
            source, deltas = self._gather(turn.plan.pieces, len(there), key, turn, nodes)
            target = self._slots(len(source)) if deltas else None
            if target is None:
                turn.fell_short("no room for a copy" if deltas else "the sources were evicted")
            else:
                self._copy(source, target, deltas)
                reached = len(there) + len(source)
                made = self._key(space.tokens[:reached], req.extra_key, key)
                value = torch.cat((there, target))
                self.insert(InsertParams(key=made, value=value, prev_prefix_len=len(there)))
                if reached < wanted:
                    turn.fell_short(f"sources were evicted: {reached} of {wanted} tokens are left")
                there = value
        turn.splice_us += (time.perf_counter() - started) * 1e6
        if len(there) <= (space.spliced_from or 0):
            # What the request computes now is canonical: the tenant's own space may have it.
            turn.give_up()
            req.extra_key = turn.extra_key

    def _gather(
        self, pieces: Sequence[Piece], have: int, key: RadixKey, turn: Turn, nodes: list[Any]
    ) -> tuple[Tensor, list[int]]:
        """Slots of the claimed tokens from `have` on, and how far each moves."""
        found = [torch.empty(0, dtype=torch.int64, device=self.device)]
        deltas: list[int] = []
        for piece in pieces:
            skip = max(have - piece.at, 0)
            wanted = piece.end - piece.start - skip
            if wanted <= 0:
                continue
            source = piece.source
            extra = turn.key_of(source.space)
            slots, node = self._find(source.tokens[: piece.end], extra, key)
            nodes.append(self.lock(node))
            found.append(slots[piece.start + skip : piece.end])
            deltas += [piece.at - piece.start] * len(found[-1])
            if len(found[-1]) < wanted:
                break
        return torch.cat(found), deltas

    def _find(self, tokens: Any, extra: str | None, key: RadixKey) -> tuple[Tensor, Any]:
        """The slots of the longest cached prefix, and the node it ends in."""
        result = super().match_prefix(MatchPrefixParams(key=self._key(tokens, extra, key)))
        node = result.last_device_node
        slots = self.path_device_indices(node)[: result.device_prefix_len]
        return slots.to(torch.int64), node

    def _key(self, tokens: Any, extra: str | None, key: RadixKey) -> RadixKey:
        return RadixKey(as_tokens(tokens), extra, cache_salt=key.cache_salt)

    def _slots(self, count: int) -> Tensor | None:
        """Fresh slots, made free by eviction if need be; None where that does not suffice."""
        allocator = self.token_to_kv_pool_allocator
        short = count - allocator.available_size()
        if short > 0:
            self.evict(EvictParams(num_tokens=short))
        slots: Tensor | None = allocator.alloc(count)
        return None if slots is None else slots.to(torch.int64)

    def _copy(self, source: Tensor, target: Tensor, deltas: list[int]) -> None:
        assert not isinstance(self._able, Refusal)
        if source.device.type != "cuda":
            move(self._able.layers, source, target, deltas, self._able.rope)
            return
        # On the forward's own stream: behind what still writes there, before who reads it.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            move(self._able.layers, source, target, deltas, self._able.rope)
        torch.cuda.current_stream().wait_stream(self._stream)

    @contextmanager
    def _held(self, node: Any) -> Iterator[list[Any]]:
        """Keep nodes from being evicted: those in the list, which may grow."""
        locks = [self.lock(node)]
        try:
            yield locks
        finally:
            for lock in locks:
                self.unlock(lock)
