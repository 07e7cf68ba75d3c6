import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent.message import canonical, copy, digest, text, view_digest

CALL = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}

PLAIN = [
    ({"role": "user", "content": "hi"}, {"role": "user", "content": "hi", "timestamp": 3}),
    (
        {"role": "user", "content": "ab"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ],
        },
    ),
    (
        {"role": "assistant", "tool_calls": [CALL]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{**CALL, "index": 0}],
            "reasoning_content": "hm",
            "function_call": None,
        },
    ),
    (
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
    ),
    (
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "a", "tool_calls": []},
    ),
    (
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
        {"role": "tool", "tool_call_id": "c1", "content": "x", "is_error": False},
    ),
]


@pytest.mark.parametrize(("left", "right"), PLAIN)
def test_what_providers_add_does_not_change_identity(left, right):
    assert canonical(left) == canonical(right)
    assert digest(left) == digest(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"role": "user", "content": "a"}, {"role": "user", "content": "b"}),
        ({"role": "user", "content": "a"}, {"role": "system", "content": "a"}),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
            {"role": "tool", "tool_call_id": "c1", "content": "x", "is_error": True},
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": "x"},
            {"role": "tool", "tool_call_id": "c2", "content": "x"},
        ),
        (
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "assistant", "tool_calls": [{**CALL, "id": "c2"}]},
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a"}}]},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "b"}}]},
        ),
    ],
)
def test_what_the_model_reads_changes_identity(left, right):
    assert canonical(left) != canonical(right)
    assert digest(left) != digest(right)


def test_canonical_keeps_an_unknown_content_part():
    part = {"type": "input_audio", "input_audio": {"data": "x"}, "annotations": None}
    assert canonical({"role": "user", "content": [part]})["content"] == [
        {"type": "input_audio", "input_audio": {"data": "x"}}
    ]


def test_a_lone_surrogate_can_be_digested():
    assert digest({"role": "tool", "content": "\ud800"}) != digest({"role": "tool", "content": ""})


def test_view_digest_depends_on_order():
    assert view_digest(["a", "b"]) != view_digest(["b", "a"])


def test_copy_does_not_share_containers():
    message = {"role": "assistant", "tool_calls": [{"function": {"name": "a"}}]}
    taken = copy(message)
    message["tool_calls"][0]["function"]["name"] = "b"
    assert taken["tool_calls"][0]["function"]["name"] == "a"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a", "a"),
        (None, ""),
        (["a", {"type": "text", "text": "b"}], "ab"),
        ([{"type": "tool_result", "content": [{"type": "text", "text": "c"}]}], "c"),
        ([{"type": "image_url", "image_url": {"url": "http://x"}}], ""),
    ],
)
def test_text(content, expected):
    assert text({"role": "user", "content": content}) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(content=st.text() | st.lists(JSON, max_size=3), extra=JSON)
@settings(deadline=None, max_examples=100)
def test_canonical_is_idempotent_and_blind_to_extras(content, extra):
    message = {"role": "user", "content": content, "provider_extra": extra}
    once = canonical(message)
    assert canonical(once) == once
    assert digest(message) == digest(once)
    assert copy(message) == message
