"""Messages, tools and edits this engine cannot take: each is told by its place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.adapter import WireEdit
from leyline_agent.serving.explain import place_of
from leyline_agent.serving.incoming import wrong_edits, wrong_messages, wrong_tools

USER = {"role": "user", "content": "go"}
CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "a.py"}
OLD_CALL = {"role": "assistant", "function_call": {"name": "ls", "arguments": "{}"}}


def told(found: Any) -> list[str]:
    return [f"{place_of(place)}: {words}" for place, words in found]


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "user"}],
        [{"role": "developer", "content": "x"}, {"role": "system", "content": "y"}, USER],
        [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {}}, "b"]}],
        [{"role": "user", "content": []}],
        [USER, CALLING, RESULT, RESULT],
        [USER, CALLING, USER, RESULT],  # late, but the call can be read
        [USER, CALLING],  # its tool still runs
        [USER, CALLING, USER],
        [USER, OLD_CALL, {"role": "function", "name": "ls", "content": "a.py"}],
        [USER, {"role": "assistant", "content": "x", "tool_calls": None, "refusal": None}],
        [{**CALLING, "tool_calls": [{**CALL, "function": {"name": "ls", "arguments": {}}}]}],
    ],
)
def test_what_can_be_shown_is_taken(messages: list[dict[str, Any]]) -> None:
    assert told(wrong_messages(messages)) == []


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"content": "x"}, "[1].role: is missing; it is one of system, developer, user"),
        ({"role": "critic", "content": "x"}, "[1].role: 'critic' is no role; the roles are"),
        ({"role": ["user"], "content": "x"}, "[1].role: ['user'] is no role"),
        ({"role": "user", "content": 7}, "[1].content: expected a string or an array of text"),
        ({"role": "user", "content": {"type": "text"}}, "[1].content: expected a string or"),
        ({"role": "user", "content": [7]}, "[1].content[0]: expected an object"),
        ({"role": "user", "content": [{"type": "text"}]}, "[1].content[0].text: expected a st"),
        ({"role": "user", "content": [{"text": "x"}]}, "[1].content[0]: a part of type None"),
        (
            {"role": "user", "content": ["see", {"type": "image_url", "image_url": {}}]},
            "[1].content[1]: a part of type 'image_url' cannot be shown to this model, which "
            "reads text only; send parts of type 'text'",
        ),
        ({"role": "tool", "content": "x"}, "[1].tool_call_id: is missing"),
        (RESULT, "[1].tool_call_id: no message before this one makes the call 'c1'"),
        ({"role": "function", "content": "x"}, "[1].name: is missing"),
        ({"role": "function", "name": "ls", "content": "x"}, "[1].name: no message before"),
        ({**CALLING, "tool_calls": "x"}, "[1].tool_calls: expected an array"),
        ({**CALLING, "tool_calls": [None]}, "[1].tool_calls[0].function: expected an object"),
        ({**CALLING, "tool_calls": [{**CALL, "function": "x"}]}, "[1].tool_calls[0].function: e"),
        (
            {**CALLING, "tool_calls": [{**CALL, "function": {"name": ""}}]},
            "[1].tool_calls[0].function.name: expected the name of a function",
        ),
        (
            {**CALLING, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": 5}}]},
            "[1].tool_calls[0].function.arguments: expected JSON in a string",
        ),
        ({"role": "assistant", "function_call": "x"}, "[1].function_call: expected an object"),
    ],
)
def test_what_cannot_is_told(message: dict[str, Any], words: str) -> None:
    [found] = told(wrong_messages([USER, message]))
    assert found.startswith(words)


def test_a_result_needs_its_call_before_it() -> None:
    [found] = told(wrong_messages([USER, RESULT, CALLING]))
    assert found.startswith("[1].tool_call_id")


def test_a_broken_message_hides_no_other() -> None:
    broken = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {}}]}
    found = told(wrong_messages([broken, {"role": "x"}, RESULT]))
    assert [each.partition(":")[0] for each in found] == [
        "[0].tool_calls[0].function.name",
        "[1].role",
        "[2].tool_call_id",
    ]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
fields = st.sampled_from(["role", "content", "tool_calls", "function_call", "tool_call_id", "name"])


@given(st.lists(st.dictionaries(fields, json), max_size=4))
def test_whatever_is_taken_can_be_rendered(messages: list[dict[str, Any]]) -> None:
    from leyline_agent.serving.tool_calls import native_messages, plain_messages

    messages = [{**message, "role": "assistant"} for message in messages]
    if not told(wrong_messages(messages)):
        plain_messages(messages, [])
        native_messages(messages)


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({"type": "custom", "custom": {}}, "[0].type: 'custom' is not supported; declare"),
        ({"type": "function", "function": "x"}, "[0].function: expected an object"),
        ({"type": "function", "function": {}}, "[0].function.name: expected the name"),
        ({}, "[0].function.name: expected the name"),
        ({"type": "function", "function": {"name": 5}}, "[0].function.name: expected the name"),
    ],
)
def test_tools_that_are_none(tool: dict[str, Any], words: str) -> None:
    [found] = told(wrong_tools([tool]))
    assert found.startswith(words)


def test_tools() -> None:
    tool = {"type": "function", "function": {"name": "ls", "parameters": {}}}
    assert told(wrong_tools([tool, tool["function"]])) == []


def edits(*spans: tuple[int, int, int]) -> list[WireEdit]:
    return [WireEdit(messages=(start, end), count=count) for start, end, count in spans]


@pytest.mark.parametrize(
    ("spans", "words"),
    [
        ([(-1, 2, 1)], "[0].messages: [-1, 2) is no half-open range of messages"),
        ([(5, 2, 1)], "[0].messages: [5, 2) is no half-open range of messages"),
        ([(1, 3, 1), (2, 4, 1)], "[1].messages: [2, 4) overlaps another edit"),
        ([(2, 4, 1), (1, 3, 1)], "[0].messages: [2, 4) overlaps another edit of [1, 3]"),
        ([(2, 2, 1), (2, 2, 1)], "[1].messages: [2, 2) overlaps another edit"),
        ([(90, 92, 1)], "[0].messages: [90, 92) begins past the end of the view; with the 5 mes"),
        ([(1, 3, 0), (8, 9, 0)], "it had no more than 7 before this edit"),
        ([(1, 2, 50)], "[0].count: the edit of [1, 2) puts 50 messages at 1, where this request"),
        ([(5, 6, 1)], "has 0 left"),
    ],
)
def test_edits_that_lead_to_no_such_view(spans: list[tuple[int, int, int]], words: str) -> None:
    [found] = told(wrong_edits(edits(*spans), 5))
    assert words in found


@given(st.lists(st.integers(0, 4), max_size=6), st.integers(0, 4), st.randoms())
def test_edits_of_any_view_fit_what_they_lead_to(sizes: list[int], rest: int, random: Any) -> None:
    """The engine need not have seen that view: a resumed session may begin with edits."""
    cursor = length = 0
    made = []
    for size in sizes:
        gap, count = random.randint(1, 3), random.randint(0, 3)
        made.append((cursor + gap, cursor + gap + size, count))
        cursor += gap + size
        length += gap + count
    random.shuffle(made)
    assert told(wrong_edits(edits(*made), length + rest)) == []
