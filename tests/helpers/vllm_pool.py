"""vLLM's block pool as far as the connector uses it, and requests, without vLLM."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass(eq=False)
class Block:
    """One block; `holds` says whose KV is in it, for the tests."""

    block_id: int
    ref_cnt: int = 0
    holds: Any = None


@dataclass
class FakePool:
    """Blocks, references, a queue of free ones, and who wants to know when one is given away."""

    size: int
    hash_block_size: int = 4
    blocks: list[Block] = field(init=False)
    free: list[Block] = field(init=False)
    watchers: dict[int, Callable[[Block], None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.blocks = [Block(i) for i in range(self.size)]
        self.blocks[0].ref_cnt = 1  # vLLM's null block
        self.free = self.blocks[1:]

    def take(self, count: int) -> list[int]:
        """New blocks for a request."""
        taken, self.free = self.free[:count], self.free[count:]
        assert len(taken) == count, "the pool is empty"
        for block in taken:
            watcher = self.watchers.pop(block.block_id, None)
            if watcher is not None:
                watcher(block)
            block.ref_cnt, block.holds = 1, None
        return [block.block_id for block in taken]

    def give_back(self, block_ids: Sequence[int]) -> None:
        """A request frees its blocks, the last first."""
        self.free_blocks([self.blocks[i] for i in reversed(block_ids)])

    def touch(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            if block.ref_cnt == 0:
                self.free.remove(block)
            block.ref_cnt += 1

    def free_blocks(self, ordered_blocks: Iterable[Block]) -> None:
        for block in ordered_blocks:
            assert block.ref_cnt > 0
            block.ref_cnt -= 1
            if block.ref_cnt == 0:
                self.free.append(block)

    def unpin_blocks(self, blocks: Iterable[Block], on_reuse: Callable[[Block], None]) -> None:
        for block in blocks:
            self.watchers[block.block_id] = on_reuse
            self.free_blocks([block])

    def get_num_free_blocks(self) -> int:
        return len(self.free)


def hasher(block_size: int) -> Callable[[Any], list[bytes]]:
    """Hashes of a request's full blocks that have none yet, chained as vLLM's are."""

    def hashes(request: Any) -> list[bytes]:
        found: list[bytes] = []
        at = len(request.block_hashes)
        parent = request.block_hashes[-1] if at else b""
        while (at + 1) * block_size <= len(request.all_token_ids):
            tokens = request.all_token_ids[at * block_size : (at + 1) * block_size]
            parent = hashlib.sha256(parent + repr(list(tokens)).encode()).digest()
            found.append(parent)
            at += 1
        return found

    return hashes


def request(
    tokens: Sequence[int], ask: Any = None, *, name: str = "r", salt: str = "", block_size: int = 4
) -> Any:
    """A request as the scheduler sees it."""
    made = SimpleNamespace(
        request_id=name, cache_salt=salt or None, kv_transfer_params=None, num_preemptions=0,
        prompt_token_ids=list(tokens), all_token_ids=list(tokens), num_prompt_tokens=len(tokens),
        num_tokens=len(tokens), num_computed_tokens=0, block_hashes=[], lora_request=None,
        mm_features=[], prompt_embeds=None, pooling_params=None, resumable=False,
        _block_hasher=hasher(block_size),
    )  # fmt: skip
    if ask is not None:
        said = ask if isinstance(ask, dict) else ask.model_dump(mode="json")
        made.kv_transfer_params = {"leyline": said}
    made.update_block_hashes = lambda: made.block_hashes.extend(made._block_hasher(made))
    made.update_block_hashes()
    return made


def sampled(made: Any, *tokens: int) -> None:
    """The request samples tokens; all before the last have KV."""
    for token in tokens:
        made.all_token_ids.append(token)
        made.num_tokens += 1
        made.update_block_hashes()
    made.num_computed_tokens = made.num_tokens - 1
