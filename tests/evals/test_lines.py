"""A file of lines: read back as it was written, on disk when it is said to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from leyline_agent.errors import LeylineError
from leyline_evals.lines import Lines


class Header(BaseModel):
    name: str = ""


class Line(BaseModel):
    text: str = ""
    number: int = 0


def lines(path: Path) -> Lines:
    return Lines(path, "a test", LeylineError, "begin anew")


def numbered(*numbers: int) -> list[Line]:
    return [Line(text=f"line {number}", number=number) for number in numbers]


@given(
    texts=st.lists(st.text(st.characters(exclude_categories=("Cs",)))),
    cut=st.integers(min_value=0),
)
def test_whatever_is_cut_off_the_whole_lines_are_found_again(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int
) -> None:
    file = lines(tmp_path_factory.mktemp("lines") / "x.jsonl")
    header = Header(name="\n\u2028")
    file.begin(header, [])
    start = file.path.stat().st_size
    ends = []
    for text in texts:
        file.add([Line(text=text)])
        ends.append(file.path.stat().st_size)
    size = start + cut % (file.path.stat().st_size - start + 1)
    os.truncate(file.path, size)
    whole = sum(end <= size for end in ends)
    assert file.read(Header, Line) == (header, [Line(text=text) for text in texts[:whole]])


def test_a_line_is_on_disk_before_it_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lines(tmp_path / "x.jsonl")
    synced: list[int] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    file.begin(Header(), numbered(1))
    begun = file.path.stat().st_size
    file.add(numbered(2, 3))
    assert synced == [begun, file.path.stat().st_size]


def test_beginning_anew_forgets_what_was_there(tmp_path: Path) -> None:
    file = lines(tmp_path / "x.jsonl")
    file.begin(Header(name="old"), numbered(1, 2))
    file.begin(Header(name="new"), numbered(3))
    assert file.read(Header, Line) == (Header(name="new"), numbered(3))
    assert list(tmp_path.iterdir()) == [file.path]
