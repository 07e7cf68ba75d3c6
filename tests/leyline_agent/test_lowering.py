import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.directive import Directive, Mode, apply
from leyline_agent.edit import Edit
from leyline_agent.edit import apply as apply_edits
from leyline_agent.lowering import common_prefix, common_suffix, lower
from leyline_agent.receipt import Reason

OPEN, CLOSE = 1, 2
GENERATION = len("(assistant)")  # the generation prompt


class ChatLike:
    """Delimited messages and a generation prompt, like ChatML."""

    def render(self, messages, tools=()):
        tokens = [ord(c) for tool in tools for c in str(tool)]
        for message in messages:
            tokens += [OPEN, *map(ord, message["role"]), 10, *map(ord, message["content"]), CLOSE]
        return [*tokens, OPEN, *map(ord, "assistant"), 10]


class Joining(ChatLike):
    """Joins neighbouring messages of one role, and tells the number of messages up front."""

    def render(self, messages, tools=()):
        tokens = [len(messages)]
        last = None
        for message in messages:
            if message["role"] != last:
                tokens += [OPEN, *map(ord, message["role"])]
            tokens += map(ord, message["content"])
            last = message["role"]
        return [*tokens, CLOSE]


texts = st.text(alphabet="ab", max_size=30)
messages = st.builds(
    lambda role, content: {"role": role, "content": content},
    st.sampled_from(["user", "tool", "assistant"]),
    texts,
)


@st.composite
def commits(draw):
    """A cached view, new messages behind it, and a legal batch of edits."""
    old = draw(st.lists(messages, max_size=8))
    new = draw(st.lists(messages, max_size=3))
    view = [*old, *new]
    edits = []
    cursor = 0
    while cursor < len(view) and draw(st.booleans()):
        start = draw(st.integers(cursor, len(view) - 1))
        end = draw(st.integers(start + 1, min(len(view), start + 2)))
        replacement = tuple(draw(st.lists(messages, max_size=2)))
        edits.append(Edit(start, end, replacement, draw(st.sampled_from(Mode))))
        cursor = end
    return old, new, edits


@settings(max_examples=300, deadline=None)
@given(commits(), st.sampled_from([ChatLike(), Joining()]), st.integers(0, 12))
def test_directives_give_exactly_the_new_tokens(commit, renderer, cut):
    old, new, edits = commit
    cached = renderer.render(old)
    previous = cached[: max(0, len(cached) - cut)]
    lowering = lower(previous, [*old, *new], edits, renderer)

    after = renderer.render(apply_edits(edits, [*old, *new]))
    assert list(lowering.tokens) == after
    assert lower(previous, [*old, *new], edits, renderer, edited=after) == lowering
    kept = len(lowering.tokens) - lowering.appended
    assert apply(previous, lowering.directives) == list(lowering.tokens[:kept])
    told = set(lowering.without) | {i for item in lowering.items for i in item.edits}
    assert told == set(range(len(edits)))


@settings(max_examples=100, deadline=None)
@given(commits())
def test_nothing_behind_a_forget_is_weaker(commit):
    old, new, edits = commit
    renderer = ChatLike()
    lowering = lower(renderer.render(old)[:-3], [*old, *new], edits, renderer)
    modes = [item.directive.mode for item in lowering.items]
    if Mode.FORGET in modes:
        assert set(modes[modes.index(Mode.FORGET) :]) == {Mode.FORGET}
    for item in lowering.items:
        assert item.directive.mode.strength >= item.asked.strength


def say(role, content):
    return {"role": role, "content": content}


def test_one_stubbed_result_is_one_directive_over_what_changed():
    renderer = ChatLike()
    view = [say("user", "task"), say("tool", "x" * 50), say("assistant", "next")]
    edit = Edit(1, 2, (say("tool", "stub"),), Mode.AMORTIZE)
    cached = renderer.render(view)[:-GENERATION]
    lowering = lower(cached, [*view, say("tool", "new")], [edit], renderer)
    [item] = lowering.items
    start = len(renderer.render(view[:1])) - GENERATION + len("(tool)")
    assert item.directive == Directive(start, start + 50, tuple(map(ord, "stub")), Mode.AMORTIZE)
    assert item.reason is Reason.ASKED
    assert lowering.appended == len(renderer.render([say("tool", "new")]))


def test_a_change_nobody_declared_is_a_forget_from_there():
    renderer = ChatLike()
    view = [say("user", "task"), say("assistant", "a reply"), say("tool", "result")]
    cached = renderer.render([view[0], say("assistant", "A reply"), view[2]])
    edit = Edit(2, 3, (say("tool", "stub"),), Mode.AMORTIZE)
    lowering = lower(cached, view, [edit], renderer)
    [item] = lowering.items
    assert item.directive.mode is Mode.FORGET
    assert item.reason is Reason.UNDECLARED
    assert lowering.without == {0: Reason.UNDECLARED}


def test_an_edit_of_text_nobody_has_cached_costs_no_directive():
    renderer = ChatLike()
    view = [say("user", "task")]
    edit = Edit(1, 2, (say("tool", "stub"),))
    cached = renderer.render(view)[:-GENERATION]
    lowering = lower(cached, [*view, say("tool", "long " * 9)], [edit], renderer)
    assert lowering.items == ()
    assert lowering.without == {0: Reason.UNSEEN}


def test_an_edit_that_changes_no_token_is_told():
    renderer = ChatLike()
    view = [say("user", "task"), say("tool", "same")]
    lowering = lower(renderer.render(view), view, [Edit(1, 2, (view[1],))], renderer)
    assert lowering.without == {0: Reason.NO_CHANGE}


def test_changed_tools_rewrite_the_head():
    renderer = ChatLike()
    view = [say("user", "task")]
    cached = renderer.render(view, ["tool one"])
    lowering = lower(cached, view, [], renderer, tools=["tool two"])
    [item] = lowering.items
    assert item.directive.start == len("tool ")
    assert item.reason is Reason.UNDECLARED


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2000])
def test_common_prefix_and_suffix_across_blocks(size):
    left = [*range(size), -1, -2]
    assert common_prefix(left, [*range(size), -3]) == size
    assert common_suffix([-5, *range(size)], [-6, *range(size)], size + 1) == size
    assert common_suffix(list(range(size)), list(range(size)), size // 2) == size // 2
