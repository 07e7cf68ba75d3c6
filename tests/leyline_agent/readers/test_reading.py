"""Finding the reader, streaming files, and bad input."""

import gzip
import io
import json
import logging

import pytest

from leyline_agent.errors import LeylineError, TrajectoryError, UnknownFormat
from leyline_agent.readers import detect, formats, read, read_text, source

CHAT = [{"role": "user", "content": "hi"}]


def line(number):
    return json.dumps({"id": f"run {number}", "messages": CHAT})


def ids(recordings):
    return [recording.id for recording in recordings]


def test_every_sample_is_detected_by_its_content(sample_texts):
    found = {name: detect(json.loads(text)) for name, text in sample_texts.items()}
    assert found == {name: name.partition(".")[0] for name in sample_texts}
    assert {*found.values(), "leyline-journal"} == set(formats())  # a file of that is one record


def test_a_list_of_records_is_read_one_by_one(sample):
    record = sample("tau-bench")
    assert detect([record, record]) == "tau-bench"
    assert ids(read_text(json.dumps([record, {**record, "trial": 2}]))) == [
        "task3-trial1",
        "task3-trial2",
    ]


def test_the_file_name_plays_no_part(tmp_path, sample_texts):
    path = tmp_path / "trajectory.jsonl"
    path.write_text(sample_texts["debug-gym"])
    assert [r.format for r in read(path)] == ["debug-gym"]
    path.write_bytes(gzip.compress(sample_texts["moatless"].encode()))
    assert [r.format for r in read(str(path))] == ["moatless"]


@pytest.mark.parametrize("joint", ["\n", "\r\n", "\n\n  \n"])
@pytest.mark.parametrize("zipped", [False, True])
def test_json_lines(tmp_path, joint, zipped):
    data = joint.join([line(1), line(2), line(3)]).encode()
    path = tmp_path / "runs"
    path.write_bytes(gzip.compress(data) if zipped else data)
    assert ids(read(path)) == ["run 1", "run 2", "run 3"]
    assert ids(read(path, limit=2)) == ["run 1", "run 2"]
    assert ids(read(path, limit=0)) == []


def test_byte_order_marks_and_other_encodings(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        path = tmp_path / encoding
        path.write_bytes(json.dumps(CHAT, indent=1).encode(encoding))
        assert next(read(path)).messages == ({"role": "user", "content": "hi"},)


def test_runs_without_a_name_are_numbered():
    assert ids(read_text(json.dumps([CHAT[0]]) + "\n" + json.dumps([CHAT[0]]))) == [
        "run-1",
        "run-2",
    ]


def test_lines_are_read_as_they_are_needed(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(line(1) + "\n{broken")
    runs = read(path)
    assert next(runs).id == "run 1"
    with pytest.raises(TrajectoryError, match=r"runs\.jsonl, line 2: malformed JSON at 2"):
        next(runs)


BAD = f"{line(1)}\n{{broken\n{line(3)}\n[3]\n{{}}\n{line(6)}\n"


def test_bad_records_can_be_counted():
    errors = []
    assert ids(read_text(BAD, on_error=errors.append)) == ["run 1", "run 3", "run 6"]
    assert [str(e).partition(":")[0] for e in errors] == [
        "text, line 2",
        "text, line 4, record 0",
        "text, line 5",
    ]
    assert [type(e) for e in errors] == [TrajectoryError, UnknownFormat, UnknownFormat]


def test_skipping_is_logged(caplog):
    with caplog.at_level(logging.WARNING, logger="leyline.readers"):
        assert len(list(read_text(BAD, on_error="skip"))) == 3
    assert [r.message.partition(",")[0] for r in caplog.records] == ["skipped: text"] * 3


def test_a_malformed_first_line_does_not_hide_the_others():
    errors = []
    assert ids(read_text(f"{{broken\n{line(2)}\n{line(3)}", on_error=errors.append)) == [
        "run 2",
        "run 3",
    ]
    assert str(errors[0]).startswith("text, line 1: malformed JSON")


@pytest.mark.parametrize(
    ("record", "seen"),
    [
        ({"alpha": 1, "beta": 2}, "an object with keys alpha, beta"),
        ({}, r"an object with keys \(none\)"),
        ([], "an empty list"),
        (["a"], "a bare str"),
        ("a", "a bare str"),
        (None, "a bare NoneType"),
        ({"messages": []}, "an object with keys messages"),
    ],
)
def test_unknown_formats_say_what_was_seen_and_what_is_known(record, seen):
    with pytest.raises(
        UnknownFormat, match=f"no reader recognises {seen}; formats read: .*moatless"
    ):
        detect(record)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty; nothing to read"),
        (b"\n \n", "empty; nothing to read"),
        (b'[{"role": "user", "content": "h', "malformed JSON at .*cut off"),
        (b'[\n{"role": "user",\n', "malformed JSON at line 3 column 1"),
        (b"\x80 not text", "not JSON text"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"9" * 5000 + b"]", "not JSON text: .*integer"),
        (gzip.compress(b"[" + b" " * 5000 + b"1]" * 5000, mtime=0)[:-20], "truncated gzip"),
        (gzip.compress(b"x" * 99, mtime=0)[:15] + b"garbage" * 9, "damaged gzip"),
        (b"\x1f\x8b\x00" + b"garbage" * 9, "damaged gzip"),
    ],
)
def test_bad_files(tmp_path, data, message):
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    with pytest.raises(TrajectoryError, match=f"bad.json.*{message}"):
        list(read(path))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(TrajectoryError, match=r"nothing\.json: cannot be opened: No such file"):
        list(read(tmp_path / "nothing.json"))
    with pytest.raises(TrajectoryError, match="a folder; name the files in it"):
        list(read(tmp_path))


def test_a_record_that_would_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "MAX_RECORD_BYTES", 1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(line(1).encode() + b"\n" + b" " * 10_000_000 + b"{}"))
    runs = read(path)
    assert next(runs).id == "run 1"
    with pytest.raises(TrajectoryError, match="line 2: a record of more than 1000 bytes"):
        next(runs)
    path.write_bytes(b"[\n" + b" \n" * 1000)
    with pytest.raises(TrajectoryError, match="more than 1000 bytes"):
        list(read(path))


def test_errors_are_leyline_errors():
    assert issubclass(UnknownFormat, TrajectoryError)
    assert issubclass(TrajectoryError, LeylineError)


def test_lines_read_from_any_stream():
    values = [found.value for found in source.lines(io.BytesIO(b"1\n2\n"), "stream")]
    assert values == [1, 2]
