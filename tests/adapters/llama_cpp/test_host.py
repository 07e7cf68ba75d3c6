"""The host over simulated cells: what every sequence consists of, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_cells import VOCAB, SimulatedModel

from leyline_adapters.llama_cpp.held import Held
from leyline_adapters.llama_cpp.host import HostConfig, LlamaHost
from leyline_adapters.llama_cpp.model import ModelFacts
from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.errors import ContextOverflow, EngineError, OutOfSlots
from leyline_agent.receipt import Reason
from leyline_agent.serving.prompt import Prompt
from leyline_agent.serving.run import Run
from leyline_agent.serving.turns import as_items

CONFIG = HostConfig(chunk=16, tapes=4)
TEXT = [i * 7 % VOCAB for i in range(120)]


@pytest.fixture
def model() -> SimulatedModel:
    return SimulatedModel()


@pytest.fixture
def host(model: SimulatedModel) -> LlamaHost:
    return LlamaHost(model, CONFIG)


def begun(host: LlamaHost, tokens: Sequence[int] = TEXT, tenant: str = "") -> Held:
    """A prompt, computed, and what is held of it."""
    return ended(host.start(Prompt(list(tokens), tenant, owner="s")))


def ended(run: Run) -> Held:
    held = run.finish()
    assert isinstance(held, Held)
    return held


def edited(
    host: LlamaHost,
    base: Held,
    *directives: Directive,
    new: Sequence[int] = (1, 2),
    tenant: str = "",
    version: int = 2,
) -> Run:
    tokens = [*apply(base.tokens, directives), *new]
    items = as_items(directives)
    prompt = Prompt(tokens, tenant, base, items, len(new), version=version, owner="s")
    return host.start(prompt)


def digests(model: SimulatedModel, held: Held) -> list[int]:
    """What its cells hold; they stand one behind the other and are the tokens'."""
    cells = model.of(held.tape.seq)
    assert [cell.position for cell in cells] == list(range(len(held)))
    assert [cell.token for cell in cells] == held.tokens
    assert not model.of(held.tape.park)
    return [cell.digest for cell in cells]


def prefilled(tokens: Sequence[int]) -> list[int]:
    """What a plain prefill gives."""
    model = SimulatedModel()
    return digests(model, begun(LlamaHost(model, CONFIG), tokens))


def test_a_prompt_is_computed_in_chunks(model: SimulatedModel, host: LlamaHost) -> None:
    held = begun(host)
    assert digests(model, held) == prefilled(TEXT)
    assert [len(part.tokens) for [part] in model.decodes] == [16] * 7 + [8]
    assert [part.rows for [part] in model.decodes] == [0] * 7 + [1]


def test_what_is_appended_is_all_that_is_computed(model: SimulatedModel, host: LlamaHost) -> None:
    run = edited(host, begun(host), new=[3, 4, 5])
    assert (run.receipt.reused_exact, run.receipt.prefilled) == (120, 3)
    assert digests(model, ended(run)) == prefilled([*TEXT, 3, 4, 5])


def test_amortize_moves_what_is_behind(model: SimulatedModel, host: LlamaHost) -> None:
    base = begun(host)
    before = digests(model, base)
    run = edited(host, base, Directive(20, 40, (), Mode.AMORTIZE))
    told = run.receipt
    assert (told.reused_exact, told.reused_spliced, told.prefilled) == (20, 80, 2)
    assert digests(model, ended(run))[:100] == before[:20] + before[40:]


def test_a_replacement_is_computed_with_nothing_before_it_but_the_prefix(
    model: SimulatedModel, host: LlamaHost
) -> None:
    base = begun(host)
    before = digests(model, base)
    run = edited(host, base, Directive(20, 40, (7, 8, 9), Mode.AMORTIZE))
    now = digests(model, ended(run))
    assert now[:23] == prefilled([*TEXT[:20], 7, 8, 9])
    assert now[23:103] == before[40:]


def test_repair_computes_the_window_as_a_prefill_would(
    model: SimulatedModel, host: LlamaHost
) -> None:
    base = begun(host)
    before = digests(model, base)
    run = edited(host, base, Directive(20, 40, (7,), Mode.REPAIR))
    told = run.receipt
    assert (told.recomputed, told.reused_spliced, told.prefilled) == (16, 64, 3)
    now = digests(model, ended(run))
    assert now[:37] == prefilled([*TEXT[:20], 7, *TEXT[40:56]])
    assert now[37:101] == before[56:]


def test_forget_is_a_prefill(model: SimulatedModel, host: LlamaHost) -> None:
    run = edited(host, begun(host), Directive(20, 40, (), Mode.FORGET))
    assert (run.receipt.reused_exact, run.receipt.reused_spliced) == (20, 0)
    assert digests(model, ended(run)) == prefilled([*TEXT[:20], *TEXT[40:], 1, 2])


def test_forget_behind_an_earlier_splice(model: SimulatedModel, host: LlamaHost) -> None:
    held = ended(edited(host, begun(host), Directive(20, 40, (), Mode.AMORTIZE)))
    run = edited(host, held, Directive(50, 60, (), Mode.FORGET), version=3)
    assert (run.receipt.reused_exact, run.receipt.reused_spliced) == (20, 30)
    again = ended(run)
    assert again.first_that_saw("2.0") == 20
    run = edited(host, again, Directive(20, len(again), (), Mode.FORGET), version=4)
    assert digests(model, ended(run)) == prefilled([*TEXT[:20], 1, 2])


def test_a_rotated_key_is_never_taken_for_a_canonical_one(
    model: SimulatedModel, host: LlamaHost
) -> None:
    base = begun(host)
    held = ended(edited(host, base, Directive(20, 40, (), Mode.AMORTIZE)))
    assert (base.intact, held.canonical_len) == (False, 20)
    other = host.start(Prompt(list(held.tokens), owner="other"))
    assert (other.receipt.reused_exact, other.receipt.reused_spliced) == (20, 0)
    back = edited(host, base, new=[3])  # from the version whose cells have moved
    assert (back.receipt.reused_exact, back.receipt.reason) == (20, Reason.EVICTED)
    assert digests(model, ended(back)) == prefilled([*TEXT, 3])


def test_cells_of_another_session_are_copied_before_they_move(
    model: SimulatedModel, host: LlamaHost
) -> None:
    mine, theirs = begun(host), begun(host)
    assert len(model.table) == 121  # all but the last token is shared
    before = digests(model, theirs)
    run = edited(host, mine, Directive(20, 40, (), Mode.AMORTIZE))
    assert run.receipt.reused_spliced == 80
    assert digests(model, theirs) == before
    assert digests(model, ended(run))[20:100] == before[40:]


def test_shared_cells_are_computed_again_where_a_copy_would_be_wrong(
    model: SimulatedModel, host: LlamaHost
) -> None:
    mine, theirs = begun(host), begun(host)
    model.can_own = False
    before = digests(model, theirs)
    run = edited(host, mine, Directive(20, 40, (), Mode.AMORTIZE))
    assert run.receipt.reason is Reason.EVICTED
    assert digests(model, theirs) == before
    digests(model, ended(run))


def test_tenants_share_nothing(host: LlamaHost) -> None:
    begun(host, tenant="one")
    assert host.start(Prompt(list(TEXT), "two")).receipt.reused_exact == 0
    assert host.start(Prompt(list(TEXT), "one")).receipt.reused_exact == 119


def test_a_cancelled_turn_is_had_again_without_another_prefill(
    model: SimulatedModel, host: LlamaHost
) -> None:
    base = begun(host)
    cut = Directive(20, 40, (7, 8), Mode.AMORTIZE)
    run = edited(host, base, cut)
    run.step(9)
    run.abandon()
    again = edited(host, base, cut)
    told = again.receipt
    assert (told.reason, told.reused_spliced) == (Reason.ASKED, 80)
    assert (told.reused_exact, told.prefilled) == (20, 4)
    now = digests(model, ended(again))
    assert now[:22] == prefilled([*TEXT[:20], 7, 8])


def test_a_prompt_cancelled_half_way(model: SimulatedModel, host: LlamaHost) -> None:
    base = begun(host)
    directives = [Directive(20, 40, (7, 8), Mode.REPAIR), Directive(60, 70, (), Mode.REPAIR)]
    tokens = [*apply(base.tokens, directives), *TEXT]
    run = host.open(Prompt(tokens, "", base, as_items(directives), len(TEXT), version=2))
    run.prefill()
    run.abandon()
    digests(model, ended(edited(host, base, *directives)))


def test_branches_of_one_version(model: SimulatedModel, host: LlamaHost) -> None:
    base = begun(host)
    one = edited(host, base, Directive(20, 40, (), Mode.AMORTIZE))
    other = edited(host, base, Directive(60, 70, (), Mode.AMORTIZE))  # while the first computes
    assert other.receipt.reused_exact == 20
    for run in (one, other):
        digests(model, ended(run))


def test_a_branch_leaves_the_newer_version_alone(model: SimulatedModel, host: LlamaHost) -> None:
    base = begun(host)
    newer = ended(edited(host, base, new=[3, 4, 5]))
    before = digests(model, newer)
    branch = edited(host, base, Directive(20, 40, (), Mode.AMORTIZE))
    assert branch.receipt.reused_spliced == 80
    assert newer.intact
    assert digests(model, newer) == before
    digests(model, ended(branch))


def test_runs_are_computed_in_one_decode(model: SimulatedModel, host: LlamaHost) -> None:
    runs = [host.open(Prompt(TEXT[i : i + 5], str(i))) for i in range(3)]
    host.compute([(run, 16) for run in runs])
    assert len(model.decodes) == 1
    assert all(run.logits is not None for run in runs)
    for run in runs:
        assert digests(model, ended(run)) == prefilled(run.sequence.tokens)


def test_scores_are_rows_of_one_run(model: SimulatedModel, host: LlamaHost) -> None:
    run = host.start(Prompt(TEXT[:20]))
    single = host.start(Prompt(TEXT[:20], "other"))
    rows = []
    for token in TEXT[20:60]:
        rows.append(single.logits)
        single.step(token)
    scored = run.score(TEXT[20:60])
    assert (scored == host.joined([row[None] for row in rows])).all()


def test_idle_sessions_give_way_and_are_told(model: SimulatedModel) -> None:
    host = LlamaHost(SimulatedModel(200), CONFIG)
    first = begun(host, TEXT, "one")
    with pytest.raises(OutOfSlots, match="120 tokens do not fit: 120 of 200 cells are used"):
        begun(host, TEXT, "two")
    assert first.intact  # nothing has changed
    host.reclaimers.append(lambda tokens: first.release())
    assert begun(host, TEXT, "two").intact
    assert len(host.tapes) == 1


def test_a_prefix_in_common_does_not_keep_an_idle_session(model: SimulatedModel) -> None:
    host = LlamaHost(SimulatedModel(200), CONFIG)
    first = begun(host)
    host.reclaimers.append(lambda tokens: first.release())
    run = host.start(Prompt([*TEXT[:5], *[1] * 115]))
    assert (run.receipt.reused_exact, run.receipt.prefilled) == (5, 115)
    assert ended(run).intact
    assert len(host.tapes) == 1


def test_an_idle_prefix_gives_way_to_copies(model: SimulatedModel) -> None:
    model = SimulatedModel(260)
    host = LlamaHost(model, CONFIG)
    begun(host, [1] * 100).release()
    base = begun(host)
    newer = ended(edited(host, base))
    branch = ended(edited(host, base, Directive(20, 40, (), Mode.AMORTIZE), version=3))
    assert len(digests(model, branch)) == 102
    assert newer.intact
    assert len(host.tapes) == 2


def test_all_sequences_in_use(host: LlamaHost) -> None:
    held = [begun(host, TEXT[:5], str(i)) for i in range(4)]
    with pytest.raises(OutOfSlots, match="all 4 sequences are in use"):
        begun(host, TEXT[:5], "more")
    held[0].release()
    assert begun(host, TEXT[:5], "more").intact


def test_too_long_a_prompt(host: LlamaHost) -> None:
    with pytest.raises(ContextOverflow, match="401 tokens do not fit"):
        host.open(Prompt([1] * 401))


def test_a_decode_that_fails_leaves_nothing(model: SimulatedModel, host: LlamaHost) -> None:
    base = begun(host)
    model.fail = True
    with pytest.raises(EngineError, match="it failed"):
        edited(host, base, Directive(20, 40, (7,), Mode.REPAIR))
    model.fail = False
    digests(model, ended(edited(host, base, Directive(20, 40, (7,), Mode.REPAIR))))


@pytest.mark.parametrize("reason", [Reason.ROPE_KIND, Reason.LAYER_KIND])
def test_what_cannot_be_moved_is_forgotten(reason: Reason) -> None:
    model = SimulatedModel(facts=ModelFacts(reason, "because"))
    host = LlamaHost(model, CONFIG)
    run = edited(host, begun(host), Directive(20, 40, (), Mode.AMORTIZE))
    assert [(e.mode_used, e.reason) for e in run.receipt.edits] == [(Mode.FORGET, reason)]
    assert run.receipt.detail == "because"
    assert digests(model, ended(run)) == prefilled([*TEXT[:20], *TEXT[40:], 1, 2])


def test_a_recurrent_state_is_continued_or_begun_anew() -> None:
    model = SimulatedModel(facts=ModelFacts(Reason.LAYER_KIND, "recurrent", whole=True))
    host = LlamaHost(model, CONFIG)
    held = ended(edited(host, begun(host), new=[3]))
    assert digests(model, held) == prefilled([*TEXT, 3])
    run = edited(host, held, Directive(20, 40, (), Mode.AMORTIZE))
    assert run.receipt.prefilled == run.receipt.prompt
    assert digests(model, ended(run)) == prefilled(run.sequence.tokens)


def test_a_tenant_who_comes_no_more_gives_up_what_nobody_holds(host: LlamaHost) -> None:
    left, held, other = begun(host, tenant="a"), begun(host, [1, 2, 3], "a"), begun(host)
    left.release()
    other.release()
    host.drop("a")
    host.drop("never seen")
    assert [tape.tenant for tape in host.tapes] == ["a", ""]
    again = host.start(Prompt(TEXT, "a"))
    assert again.receipt.reused_exact == 0
    assert len(held) == 3


@st.composite
def edits(draw: st.DrawFn, length: int) -> list[Directive]:
    """A few directives on a sequence."""
    marks = st.lists(st.integers(0, length), min_size=2, max_size=6, unique=True)
    places = sorted(draw(marks))
    result = []
    for start, end in zip(places[::2], places[1::2], strict=False):
        new = draw(st.lists(st.integers(0, VOCAB - 1), max_size=30))
        result.append(Directive(start, end, tuple(new), draw(st.sampled_from(list(Mode)))))
    return result


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_whatever_happens_sequences_stay_whole(data: st.DataObject) -> None:
    """Sessions begin, are edited, branch, are cancelled; every receipt adds up by itself."""
    model = SimulatedModel(700)
    host = LlamaHost(model, HostConfig(chunk=16, tapes=6))
    held: list[tuple[str, Held]] = []
    for version in range(2, 8):
        tenant = data.draw(st.sampled_from(["", "other"]))
        mine = [h for t, h in held if t == tenant]
        if not mine or data.draw(st.integers(0, 4)) == 0:
            run = host.start(Prompt(TEXT[: data.draw(st.integers(1, 120))], tenant))
        else:
            base = data.draw(st.sampled_from(mine))
            directives = data.draw(edits(len(base)))
            new = data.draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9))
            run = edited(host, base, *directives, new=new, tenant=tenant, version=version)
        if data.draw(st.booleans()):
            run.step(5)
        if data.draw(st.integers(0, 3)) == 0:
            run.abandon()
        else:
            held.append((tenant, ended(run)))
        while len(held) > 3:
            held.pop(data.draw(st.integers(0, len(held) - 1)))[1].release()
        for _, one in held:
            if one.intact:
                kept = [cell.digest for cell in model.of(one.tape.seq)][: len(one)]
                clean = one.canonical_len
                assert kept[:clean] == prefilled(one.tokens)[:clean]
        assert host.num_used == len(model.table)
