import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode, apply, check, kept_runs, strongest
from leyline_agent.errors import InvalidSpan, OverlappingSpans


@st.composite
def batches(draw):
    """A sequence and a legal batch of directives on it."""
    tokens = draw(st.lists(st.integers(0, 50), max_size=60))
    cuts = sorted(draw(st.lists(st.integers(0, len(tokens)), max_size=8)))
    directives = []
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        if directives and start == directives[-1].end:
            continue
        replacement = tuple(draw(st.lists(st.integers(100, 110), max_size=4)))
        directives.append(Directive(start, end, replacement, draw(st.sampled_from(Mode))))
    return tokens, draw(st.permutations(directives))


@given(batches())
def test_apply_equals_one_directive_at_a_time_from_the_right(batch):
    tokens, directives = batch
    expected = list(tokens)
    for start, end, replacement, _ in sorted(directives, reverse=True):
        expected[start:end] = replacement
    assert apply(tokens, directives) == expected


@given(batches())
def test_kept_runs_are_what_apply_keeps_at_the_shifted_place(batch):
    tokens, directives = batch
    after = apply(tokens, directives)
    runs = kept_runs(directives, len(tokens))
    for run in runs:
        assert after[run.start + run.shift : run.end + run.shift] == tokens[run.start : run.end]
    kept = sum(run.end - run.start for run in runs)
    assert kept == len(tokens) - sum(d.end - d.start for d in directives)


def test_delta_is_the_growth_of_the_sequence():
    assert Directive(2, 5, (7, 7)).delta == -1
    assert Directive(3, 3, (7, 7)).delta == 2


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (0, 11)])
def test_a_span_outside_the_sequence_is_refused(span):
    with pytest.raises(InvalidSpan, match="does not fit a sequence of 10 tokens"):
        check([Directive(*span)], 10)


@pytest.mark.parametrize(
    "pair",
    [
        (Directive(0, 5), Directive(4, 6)),
        (Directive(2, 2, (1,)), Directive(2, 2, (3,))),
        (Directive(0, 9), Directive(3, 4)),
    ],
)
def test_overlapping_spans_are_refused(pair):
    with pytest.raises(OverlappingSpans, match="overlap"):
        check(pair, 10)


def test_the_strongest_mode_wins():
    assert strongest(Mode.AMORTIZE, None, Mode.FORGET, Mode.REPAIR) is Mode.FORGET
    assert strongest(Mode.AMORTIZE, Mode.REPAIR) is Mode.REPAIR
    assert strongest() is Mode.AMORTIZE
