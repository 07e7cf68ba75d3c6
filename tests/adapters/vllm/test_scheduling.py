"""The scheduler side, driven as vLLM's scheduler drives it, with a pool and requests of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from vllm_pool import FakePool, request, sampled

from leyline_adapters.vllm.refusals import Refusal
from leyline_adapters.vllm.scheduling import SchedulerSide
from leyline_adapters.vllm.transfer import Copy
from leyline_adapters.vllm.wire import Ask, Claim, Told
from leyline_agent.receipt import Reason

SIZE = 4
TEXT = list(range(100, 130))


@dataclass
class Scheduler:
    """Admits a request, allocates, loads and finishes it, one after another."""

    pool: FakePool = field(default_factory=lambda: FakePool(64))
    share: float = 0.5
    refusal: Refusal | None = None
    said: Sequence[Refusal | None] = (None,)
    cached: dict[bytes, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.side = SchedulerSide(SIZE, 40, self.share, self.refusal)
        self.side.bind(self.pool)
        self.side.workers_said(self.said)

    def start(self, made: Any) -> tuple[list[int], Any]:
        """Admission to loads: the request's blocks, and its load if there is one."""
        self.side.admit(made)
        local = 0
        for block_hash in made.block_hashes[: (made.num_tokens - 1) // SIZE]:
            if block_hash not in self.cached:
                break
            local += SIZE
        found = self.side.matched(made, local)
        assert self.side.matched(made, local) == found  # It may be asked twice.
        block_ids = self.pool.take(-(-made.num_tokens // SIZE))
        self.side.allocated(made, block_ids, found)
        loads = self.side.take_loads()
        return block_ids, loads[0] if loads else None

    def run(self, made: Any, *, fails: str = "", aborted: bool = False) -> tuple[Told, Any]:
        """The request's receipt, and its load."""
        block_ids, load = self.start(made)
        if load is not None:
            self.side.failed({made.request_id: fails} if fails else {})
            self.side.timed({made.request_id: 7.0})
            self.side.loaded([made.request_id])
        sampled(made, 1)
        told = self.side.finished(made, block_ids, aborted=aborted)
        if not aborted:
            self.cached |= dict.fromkeys(made.block_hashes[: made.num_computed_tokens // SIZE], 1)
        self.pool.give_back(block_ids)
        return told, load


def cut(handle: str, start: int, end: int, length: int, **more: Any) -> Ask:
    """Keep what is around [start, end) of a source."""
    front, back = {"start": 0, "end": start, "at": 0}, {"start": end, "end": length, "at": start}
    claims = [Claim(source=handle, **run) for run in (front, back) if run["start"] < run["end"]]
    return Ask(session="s", base=handle, claims=tuple(claims), **more)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


@pytest.fixture
def source(scheduler: Scheduler) -> str:
    told, _ = scheduler.run(request(TEXT, Ask(session="s")))
    assert (told.prompt, told.prefilled, told.reason) == (30, 30, "asked")
    return told.handle


EDITED = TEXT[:10] + TEXT[17:] + [7, 8]


def test_a_deletion(scheduler: Scheduler, source: str) -> None:
    told, load = scheduler.run(request(EDITED, cut(source, 10, 17, 30)))
    assert (told.reused_exact, told.reused_spliced, told.prefilled) == (10, 13, 2)
    assert (told.spliced_from, told.splice_us, told.reason) == (10, 7.0, "asked")
    # Two blocks come from the cache; copied are tokens 8 and 9 as they are, and 17 to 29 moved.
    assert load.copies == (
        Copy(blocks=(3,), offset=0, at=8, length=2, shift=0),
        Copy(blocks=(5, 6, 7, 8), offset=1, at=10, length=13, shift=-7),
    )
    assert len(load.blocks) == 7


def test_a_request_without_an_ask_passes_through(scheduler: Scheduler) -> None:
    made = request(TEXT)
    before = list(made.block_hashes)
    told, load = scheduler.run(made)
    assert (told, load) == (None, None)
    assert made.block_hashes[: len(before)] == before


def test_spliced_blocks_are_found_by_their_lineage_alone(scheduler: Scheduler, source: str) -> None:
    told, _ = scheduler.run(request(EDITED, cut(source, 10, 17, 30)))
    plain, load = scheduler.run(request(EDITED, Ask(session="s")))
    assert (plain.reused_exact, plain.prefilled, load) == (8, 17, None)
    going_on = cut(told.handle, 25, 25, 25)
    found, _ = scheduler.run(request([*EDITED, 1, 9], going_on))
    assert (found.reused_exact, found.reused_spliced) == (10, 15)
    again, load = scheduler.run(request(EDITED, cut(source, 10, 17, 30)))
    assert (again.reused_spliced, load) == (14, None)


@pytest.mark.parametrize("named", [False, True])
def test_forget_in_front_of_a_splice_finds_nothing_spliced(
    scheduler: Scheduler, source: str, named: bool
) -> None:
    """Also where the prompt stays the same to the token."""
    first, _ = scheduler.run(request(EDITED, cut(source, 10, 17, 30)))
    claims = (Claim(source=first.handle, start=0, end=9, at=0),)
    forget = Ask(session="s", base=first.handle if named else "", claims=claims)
    told, load = scheduler.run(request(EDITED, forget))
    assert (told.reused_exact, told.reused_spliced, told.prefilled) == (9, 0, 16)
    assert told.spliced_from is None
    assert [copy.length for copy in load.copies] == [1]
    plain, _ = scheduler.run(request(EDITED, Ask(session="other")))
    assert (plain.reused_exact, plain.prefilled) == (24, 1)  # what was computed is canonical


def test_forget_behind_a_splice_is_computed_although_its_tokens_were_there(
    scheduler: Scheduler, source: str
) -> None:
    first, _ = scheduler.run(request(EDITED, cut(source, 10, 17, 30)))
    claims = (Claim(source=first.handle, start=0, end=15, at=0),)
    forget = Ask(session="s", base=first.handle, claims=claims)
    told, _ = scheduler.run(request(EDITED, forget))
    assert (told.reused_exact, told.reused_spliced, told.prefilled) == (10, 5, 10)
    again, _ = scheduler.run(request(EDITED, forget))
    assert (again.reused_exact, again.reused_spliced) == (10, 14)  # its own, by its own lineage
    going_on, _ = scheduler.run(request([*EDITED, 1, 9], cut(told.handle, 25, 25, 25)))
    assert (going_on.reused_exact, going_on.reused_spliced) == (10, 15)
    kept, _ = scheduler.run(request([*EDITED, 1, 9], cut(first.handle, 25, 25, 25)))
    assert kept.handle != going_on.handle
    assert (kept.reused_exact, kept.reused_spliced) == (10, 15)


def test_chains_are_read_from_where_keys_were_written(scheduler: Scheduler, source: str) -> None:
    first, _ = scheduler.run(request(EDITED, cut(source, 10, 17, 30, release=(source,))))
    now = EDITED[:4] + EDITED[6:] + [9]
    told, load = scheduler.run(request(now, cut(first.handle, 4, 6, len(EDITED))))
    assert (told.reused_exact, told.spliced_from) == (4, 4)
    shifts = [(copy.at, copy.length, copy.shift) for copy in load.copies]
    # Tokens 6 to 9 of the second request stand 2 further left; those of the first 9 in all; what
    # the second computed itself 2.
    assert shifts == [(4, 4, -2), (8, 13, -9), (21, 2, -2)]


def test_a_failing_worker(scheduler: Scheduler, source: str) -> None:
    told, _ = scheduler.run(request(EDITED, cut(source, 10, 17, 30)), fails="boom")
    assert (told.reused_exact, told.reused_spliced, told.spliced_from) == (8, 0, None)
    assert (told.reason, told.detail) == ("engine_cannot_splice", "a worker failed: boom")
    assert scheduler.side.matched(request(EDITED), 0) == 0


def test_a_failed_request_is_not_loaded_again(scheduler: Scheduler, source: str) -> None:
    made = request(EDITED, cut(source, 10, 17, 30))
    scheduler.start(made)
    scheduler.side.failed({made.request_id: "boom"})
    assert scheduler.side.matched(made, 0) == 0


def test_a_preempted_request_is_planned_again(scheduler: Scheduler, source: str) -> None:
    made = request(EDITED, cut(source, 10, 17, 30))
    block_ids, load = scheduler.start(made)
    scheduler.side.loaded([made.request_id])
    sampled(made, 1, 2, 3)
    scheduler.pool.give_back(block_ids)
    made.num_preemptions, made.num_computed_tokens = 1, 0
    assert scheduler.side.matched(made, 8) == 15
    block_ids = scheduler.pool.take(7)
    scheduler.side.allocated(made, block_ids, 15)
    (again,) = scheduler.side.take_loads()
    assert again.copies == load.copies
    scheduler.side.loaded([made.request_id])
    made.num_computed_tokens = made.num_tokens - 1
    told = scheduler.side.finished(made, block_ids, aborted=False)
    assert told is not None
    assert told.detail == "preempted 1 times"


def test_what_a_resumed_request_finds_is_told(scheduler: Scheduler, source: str) -> None:
    """At first there was no room for the copy; the KV it ends with is spliced all the same."""
    made = request(EDITED, cut(source, 10, 17, 30))
    scheduler.side.admit(made)
    others = scheduler.pool.take(scheduler.pool.get_num_free_blocks() - 6)
    assert scheduler.side.matched(made, 8) == 0
    block_ids = scheduler.pool.take(6)
    scheduler.side.allocated(made, block_ids, 0)
    scheduler.pool.give_back(block_ids + others)
    made.num_preemptions = 1
    assert scheduler.side.matched(made, 8) == 15
    block_ids = scheduler.pool.take(7)
    scheduler.side.allocated(made, block_ids, 15)
    scheduler.side.take_loads()
    scheduler.side.loaded([made.request_id])
    sampled(made, 1)
    told = scheduler.side.finished(made, block_ids, aborted=False)
    assert (told.reused_exact, told.reused_spliced, told.spliced_from) == (10, 13, 10)
    assert told.reason == "evicted"
    next_one, _ = scheduler.run(request([*EDITED, 1, 9], cut(told.handle, 25, 25, 25)))
    assert (next_one.reused_exact, next_one.reused_spliced) == (10, 15)


@pytest.mark.parametrize("when", ["admitted", "planned", "loading"])
def test_an_abort_leaves_nothing_pinned(scheduler: Scheduler, source: str, when: str) -> None:
    free = scheduler.pool.get_num_free_blocks()
    made = request(EDITED, cut(source, 10, 17, 30))
    block_ids: list[int] = []
    if when == "loading":
        block_ids, _ = scheduler.start(made)
    else:
        scheduler.side.admit(made)
        if when == "planned":
            scheduler.side.matched(made, 0)
            assert scheduler.side.take_loads() == ()
    told = scheduler.side.finished(made, block_ids, aborted=True)
    assert told is not None
    assert told.handle == ""
    scheduler.side.loaded([made.request_id])
    scheduler.pool.give_back(block_ids)
    assert scheduler.pool.get_num_free_blocks() == free


def test_sources_that_are_gone_shorten_the_claim() -> None:
    scheduler = Scheduler(share=0.0)  # nothing is pinned
    told, _ = scheduler.run(request(TEXT, Ask(session="s")))
    scheduler.cached.clear()
    scheduler.pool.take(scheduler.pool.get_num_free_blocks() - 8)
    blocks = scheduler.pool.take(6)
    scheduler.pool.give_back(blocks)
    edited, load = scheduler.run(request(EDITED, cut(told.handle, 10, 17, 30)))
    assert edited.reason == "evicted"
    copied = sum(copy.length for copy in load.copies) if load else 0
    assert edited.prefilled == 25 - copied >= 13


def test_no_room_for_source_and_copy_is_a_prefill() -> None:
    """Rather than to wait for memory that its own source takes."""
    scheduler = Scheduler(FakePool(13), share=0.0)
    told, _ = scheduler.run(request(TEXT, Ask(session="s")))
    scheduler.cached.clear()
    edited, load = scheduler.run(request(EDITED, cut(told.handle, 10, 17, 30)))
    assert (edited.reason, edited.prefilled, load) == ("evicted", 25, None)


def test_room_for_the_longest_request_is_never_pinned() -> None:
    scheduler = Scheduler(FakePool(21), share=0.9)
    for number in range(6):
        scheduler.run(request([number, *TEXT], Ask(session="s"), name=str(number)))
    assert scheduler.pool.get_num_free_blocks() >= 10


@pytest.mark.parametrize(
    ("field_", "value", "said"),
    [
        ("lora_request", object(), "LoRA"),
        ("mm_features", [object()], "images"),
        ("prompt_embeds", object(), "embeddings"),
        ("prompt_token_ids", None, "embeddings"),
        ("pooling_params", object(), "pooling"),
        ("resumable", True, "streamed"),
    ],
)
def test_requests_that_are_refused(
    scheduler: Scheduler, source: str, field_: str, value: Any, said: str
) -> None:
    made = request(EDITED, cut(source, 10, 17, 30))
    hashes = list(made.block_hashes)
    setattr(made, field_, value)
    told, load = scheduler.run(made)
    assert (told.reason, told.handle, load) == ("engine_cannot_splice", "", None)
    assert said in told.detail
    assert made.block_hashes[: len(hashes)] == hashes


def test_a_server_that_is_refused_says_so_at_every_turn() -> None:
    scheduler = Scheduler(refusal=Refusal(Reason.LAYER_KIND, "layers with windows"))
    told, _ = scheduler.run(request(TEXT, Ask(session="s")))
    assert (told.reason, told.detail, told.handle) == ("layer_kind", "layers with windows", "")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((), "engine_cannot_splice"),
        ((None, Refusal(Reason.ROPE_KIND, "one rank cannot")), "rope_kind"),
        ((None, None), "asked"),
    ],
)
def test_every_worker_must_be_able_to(said: Sequence[Refusal | None], reason: str) -> None:
    told, _ = Scheduler(said=said).run(request(TEXT, Ask(session="s")))
    assert told.reason == reason


@pytest.mark.parametrize("asked", [{}, {"session": "s", "claims": [{}]}, [], "x", None, 5])
def test_an_ask_that_is_none(scheduler: Scheduler, asked: Any) -> None:
    made = request(TEXT)
    made.kv_transfer_params = {"leyline": asked}
    told, load = scheduler.run(made)
    assert (told.reason, told.handle, load) == ("invalid_edit", "", None)
    assert told.detail.startswith("leyline")


def test_nothing_to_keep(scheduler: Scheduler) -> None:
    free = scheduler.pool.get_num_free_blocks()
    told, _ = scheduler.run(request(TEXT, Ask(session="s", keep=False)))
    assert told.handle == ""
    assert scheduler.pool.get_num_free_blocks() == free


def test_a_reset_gives_up_every_source(scheduler: Scheduler, source: str) -> None:
    scheduler.side.reset()
    assert scheduler.pool.get_num_free_blocks() == 63
    told, _ = scheduler.run(request(EDITED, cut(source, 10, 17, 30)))
    assert told.reason == "evicted"
