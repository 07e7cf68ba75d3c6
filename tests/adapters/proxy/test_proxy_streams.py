from hypothesis import given
from hypothesis import strategies as st

from leyline_adapters.proxy.streams import Event, Reader, rewritten

lines = st.sampled_from(
    [
        b"data: {}",
        b"data:x",
        b"data: a: b",
        b"event: e",
        b": note",
        b"id: 3",
        b"",
        b"odd",
        b"data: \xff",
    ]
)
streams = st.lists(st.tuples(lines, st.sampled_from([b"\n", b"\r\n"])), max_size=12).map(
    lambda told: b"".join(line + end for line, end in told)
)


def read(pieces):
    reader = Reader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [*events, *reader.end()]


@given(streams, st.booleans(), st.lists(st.integers(0, 80), max_size=6))
def test_events_are_the_same_wherever_they_were_cut(stream, ends, cuts):
    stream = stream if ends else stream[:-1]
    places = sorted({0, *(cut for cut in cuts if cut < len(stream)), len(stream)})
    pieces = [stream[a:b] for a, b in zip(places, places[1:], strict=False)]
    whole = read([stream])
    assert read(pieces) == whole
    assert b"".join(event.raw for event in whole) == stream
    assert all(event.raw.strip(b"\r\n").count(b"\n\n") == 0 for event in whole)


def test_lines_of_data_are_joined():
    [event] = read([b'event: x\ndata: {"a":\ndata:  1}\n\n'])
    assert event.data == '{"a":\n 1}'
    assert event.body == {"a": 1}
    assert rewritten(event, b"{}") == b"event: x\ndata: {}\n\n"


def test_what_is_no_object_has_no_body():
    assert [Event(b"", data).body for data in ("", "[DONE]", "[]", "3", "{")] == [None] * 5


def test_a_rewritten_event_keeps_its_other_lines():
    [event] = read([b": note\r\nid: 7\r\ndata: {}\r\nretry: 3\r\n\r\n"])
    assert rewritten(event, b"[]") == b": note\r\nid: 7\r\ndata: []\r\nretry: 3\r\n\r\n"
