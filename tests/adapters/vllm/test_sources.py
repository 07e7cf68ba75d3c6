"""Sources: who holds which block, where keys were written, and what is given up for whom."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from vllm_pool import FakePool

from leyline_adapters.vllm.blocks import BlockKeeper
from leyline_adapters.vllm.sources import Home, Moved, Source, SourceTable
from leyline_agent.receipt import Reason

SIZE = 4
OWNER = ("tenant", "session")


def table(pool: FakePool, budget: int = 100, limit: int = 1024) -> SourceTable:
    return SourceTable(BlockKeeper(pool), SIZE, budget, limit)


def made(sources: SourceTable, pool: FakePool, tokens: int, owner=OWNER, moved=()) -> str:
    """A source of a request that has ended."""
    block_ids = pool.take(-(-tokens // SIZE))
    home = Home(list(sources.keeper.hold(block_ids)))
    handle = sources.keep(Source(owner, list(range(tokens)), tokens - 1, (), None, home, moved))
    pool.give_back(block_ids)
    return handle


def where(sources: SourceTable, handle: str, start: int, end: int, at: int = 0):
    """Pieces as (block, slot, at, length)."""
    source = sources.find(handle, OWNER)
    return [
        (p.home.blocks[p.position // SIZE].block_id, p.position % SIZE, p.at, p.length)
        for p in source.pieces(start, end, at, SIZE)
    ]


def test_a_source_outlives_its_request_until_it_is_released() -> None:
    pool = FakePool(11)
    sources = table(pool)
    handle = made(sources, pool, 10)
    assert pool.get_num_free_blocks() == 7
    assert where(sources, handle, 2, 9, at=20) == [(1, 2, 20, 2), (2, 0, 22, 4), (3, 0, 26, 1)]
    sources.release([handle], OWNER)
    assert pool.get_num_free_blocks() == 10
    assert sources.find(handle, OWNER) is Reason.EVICTED


def test_handles_are_their_owners() -> None:
    pool = FakePool(11)
    sources = table(pool)
    handle = made(sources, pool, 10)
    for other in (("tenant", "other"), ("other", "session")):
        assert sources.find(handle, other) is Reason.UNKNOWN_SESSION
        sources.release([handle], other)
    assert isinstance(sources.find(handle, OWNER), Source)


def test_beyond_the_budget_the_least_recently_used_are_soft() -> None:
    pool = FakePool(13)
    sources = table(pool, budget=6)
    first, second, third = (made(sources, pool, 12) for _ in range(3))
    assert pool.get_num_free_blocks() == 12 - 6
    assert len(where(sources, first, 0, 11)) == 3  # soft: still there
    pool.take(6)
    assert where(sources, first, 0, 11) == []
    assert len(where(sources, second, 0, 11)) == len(where(sources, third, 0, 11)) == 3


def test_only_so_many_are_kept() -> None:
    pool = FakePool(30)
    sources = table(pool, limit=2)
    handles = [made(sources, pool, 4) for _ in range(3)]
    assert len(sources) == 2
    assert sources.find(handles[0], OWNER) is Reason.EVICTED
    assert sources.keeper.num_held == 2


def moved_source(pool: FakePool, sources: SourceTable) -> tuple[str, str]:
    """S1 of 16 tokens; S2 has its tokens [8, 15) at 2."""
    first = made(sources, pool, 16)
    home = sources.find(first, OWNER).home
    return first, made(sources, pool, 12, moved=(Moved(2, 9, home, 6),))


def test_keys_are_read_from_where_they_were_written() -> None:
    pool = FakePool(30)
    sources = table(pool)
    _, second = moved_source(pool, sources)
    assert where(sources, second, 0, 10) == [
        (5, 0, 0, 2),  # its own
        (3, 0, 2, 4), (4, 0, 6, 3),  # S1's blocks
        (7, 1, 9, 1),  # its own
    ]  # fmt: skip


def test_what_later_sources_were_written_in_survives_a_release() -> None:
    pool = FakePool(30)
    sources = table(pool)
    first, second = moved_source(pool, sources)
    sources.release([first], OWNER)
    assert [block for block, *_ in where(sources, second, 2, 9)] == [3, 4]
    assert sources.keeper.num_held == 3 + 2
    assert sources.keeper.num_pinned == 3  # What is nobody's by name is soft.
    sources.release([second], OWNER)
    assert sources.keeper.num_held == 0
    assert pool.get_num_free_blocks() == 29


def test_the_copy_serves_once_the_original_is_gone() -> None:
    pool = FakePool(10)
    sources = table(pool)
    first, second = moved_source(pool, sources)
    sources.release([first], OWNER)
    pool.take(pool.get_num_free_blocks())
    assert {block for block, *_ in where(sources, second, 0, 10)} == {5, 6, 7}


def test_a_reset_gives_everything_up() -> None:
    pool = FakePool(30)
    sources = table(pool, budget=3)
    moved_source(pool, sources)
    sources.clear()
    assert (len(sources), sources.keeper.num_held) == (0, 0)
    assert pool.get_num_free_blocks() == 29


class Holding(RuleBasedStateMachine):
    """Requests come and go, sources are kept, used and released: no read meets another's KV."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = FakePool(25)
        self.sources = table(self.pool, budget=8, limit=5)
        self.running: list[list[int]] = []
        self.written: dict[int, object] = {}
        self.handles: list[str] = []
        self.next = 0

    @rule(tokens=st.integers(1, 20), move=st.none() | st.integers(0, 3))
    def finish(self, tokens: int, move: int | None) -> None:
        """A request that ran and is kept; perhaps half of it was moved from another source."""
        count = -(-tokens // SIZE)
        if self.pool.get_num_free_blocks() < count:
            return
        known = [s for h in self.handles if isinstance(s := self.sources.find(h, OWNER), Source)]
        moved = ()
        if move is not None and known and tokens > 3:
            other = known[move % len(known)]
            end = min(tokens - 1, other.held)
            moved = (Moved(1, end, other.home, 0),) if end > 1 else ()
        block_ids = self.pool.take(count)
        home = Home(list(self.sources.keeper.hold(block_ids)))
        for block_id in block_ids:
            self.pool.blocks[block_id].holds = home
        source = Source(OWNER, list(range(tokens)), max(0, tokens - 1), (), None, home, moved)
        self.handles.append(self.sources.keep(source))
        self.pool.give_back(block_ids)

    @rule(count=st.integers(1, 12))
    def start(self, count: int) -> None:
        """An ordinary request takes blocks, and writes into them."""
        if self.pool.get_num_free_blocks() >= count:
            self.running.append(self.pool.take(count))

    @precondition(lambda self: self.running)
    @rule()
    def end(self) -> None:
        self.pool.give_back(self.running.pop(0))

    @precondition(lambda self: self.handles)
    @rule(which=st.integers(0, 9))
    def release(self, which: int) -> None:
        self.sources.release([self.handles[which % len(self.handles)]], OWNER)

    @invariant()
    def reads_meet_what_was_written(self) -> None:
        for handle in self.handles:
            source = self.sources._sources.get(handle)
            if source is None:
                continue
            at = 0
            for piece in source.pieces(0, source.held, 0, SIZE):
                held = piece.home.blocks[piece.position // SIZE]
                assert held is not None
                assert self.pool.blocks[held.block_id].holds is piece.home
                assert piece.at == at
                assert piece.position % SIZE + piece.length <= SIZE
                at += piece.length

    @invariant()
    def budget_and_counts_hold(self) -> None:
        keeper = self.sources.keeper
        assert keeper.num_pinned <= 8
        assert len(self.sources) <= 5
        used = sum(map(len, self.running))
        assert self.pool.get_num_free_blocks() == 24 - used - keeper.num_pinned

    def teardown(self) -> None:
        self.sources.clear()
        assert self.sources.keeper.num_held == 0


TestHolding = Holding.TestCase
TestHolding.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
