import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_adapters.proxy.body import Body, NotAnObject

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=6) | st.just("messages"), values, max_size=6)
ODD = (
    b' {"temperature" : 1.0, "big":12345678901234567890123,\n'
    b'"messages":[ {"role":"user","content":"\\u00e9\\/" } , {"role": "x"}], "seed":1e3 } '
)


@given(objects, st.booleans(), st.sampled_from([None, 2]))
def test_it_reads_what_json_reads(given_value, ascii_only, indent):
    text = json.dumps(given_value, ensure_ascii=ascii_only, indent=indent)
    data = text.encode("utf-8", "surrogatepass")
    try:
        data.decode()
    except UnicodeDecodeError:
        with pytest.raises(NotAnObject):
            Body(data)
        return
    body = Body(data)
    assert body.values == json.loads(text)
    assert body.replaced(body.values) is data
    assert json.loads(body.replaced({**body.values, "new": 1})) == {**given_value, "new": 1}


@given(st.lists(values, max_size=6), st.data())
def test_elements_keep_their_bytes(elements, data):
    texts = [json.dumps(each, indent=1) for each in elements]
    body = Body(('{"messages": [' + " , ".join(texts) + "]}").encode())
    kept = data.draw(st.lists(st.sampled_from(range(len(elements))) if elements else st.nothing()))
    picked = [body.values["messages"][i] for i in kept]
    sent = body.replaced({"messages": [*picked, {"new": True}]}).decode()
    # Equal values may be one object, as None is; whichever text is taken means the same.
    assert json.loads(sent) == {"messages": [*picked, {"new": True}]}
    unlike = [i for i in kept if not isinstance(elements[i], bool | int | str | None)]
    assert all(texts[i] in sent for i in unlike)


def test_what_is_not_replaced_keeps_its_bytes():
    body = Body(ODD)
    first, second = body.values["messages"]
    sent = body.replaced({**body.values, "messages": [first, {**second, "content": "new"}]})
    assert b'"temperature" : 1.0' in sent
    assert b'"big":12345678901234567890123' in sent
    assert b'{"role":"user","content":"\\u00e9\\/" }' in sent
    assert b'"seed":1e3' in sent
    assert json.loads(sent)["messages"][1] == {"role": "x", "content": "new"}


def test_a_list_of_the_same_elements_is_the_same():
    body = Body(ODD)
    assert body.replaced({**body.values, "messages": list(body.values["messages"])}) is ODD
    shorter = body.replaced({**body.values, "messages": body.values["messages"][:1]})
    assert len(json.loads(shorter)["messages"]) == 1


def test_members_are_added_and_left_out():
    body = Body(b'{"a": 1, "leyline": {"x": 1}, "b": [1, 2]}')
    assert body.replaced({"a": 1, "b": body.values["b"]}) == b'{"a": 1,"b": [1, 2]}'
    assert body.replaced({**body.values, "leyline": 2}).startswith(b'{"a": 1,"leyline":2,')


def test_halves_of_surrogate_pairs_go_out_escaped():
    body = Body(b'{"messages": [{"content": "\\ud800"}]}')
    found = body.values["messages"][0]["content"]
    assert b"\\ud800!" in body.replaced({"messages": [{"content": found + "!"}]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"3",
        b"{",
        b'{"a"}',
        b'{"a":}',
        b'{"a":1,}',
        b'{"a":1} x',
        b'{"messages":[1,]}',
        b'{"messages":[1 2]}',
        b'{"messages":[',
        b"{a:1}",
        b'{"a":"\xff"}',
        b'{"a":' + b"[" * 100_000,
        b'{"messages":[' + b"[" * 100_000,
    ],
)
def test_what_is_no_object(data):
    with pytest.raises(NotAnObject):
        Body(data)


def test_of_a_key_given_twice_the_last_counts():
    body = Body(b'{"messages": [1], "messages": [2]}')
    assert body.values == {"messages": [2]}
    assert json.loads(body.replaced({"messages": [3]})) == {"messages": [3]}
