"""The file of a measurement: whole whatever happens while it is begun anew."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from leyline_evals.fidelity.cases import Kind
from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.records import Config, EditRow
from leyline_evals.fidelity.store import Header, Store, read_rows


def row(number: int) -> EditRow:
    return EditRow(key=f"run@{number}", cluster="run", kind=Kind.STUB, prompt=900 + number)


@pytest.fixture
def header(config: Config) -> Header:
    return Header(fingerprint="f", config=config)


@pytest.mark.parametrize("resume", [True, False])
def test_a_disk_full_at_the_start_costs_nothing(
    tmp_path: Path,
    header: Header,
    full_disk: Callable[[int], AbstractContextManager[None]],
    resume: bool,
) -> None:
    path = tmp_path / "x.edits.jsonl"
    with Store(path, header) as store:
        for number in range(5):
            store.add(row(number))
    held = path.read_bytes()
    room = len(held) - 40 if resume else 40
    with full_disk(room), pytest.raises(FidelityError, match="cannot be written"):
        Store(path, header, resume=resume)
    assert path.read_bytes() == held
    assert {file.suffix for file in tmp_path.iterdir()} == {".jsonl", ".lock"}


def test_a_disk_full_later_costs_the_edit_it_came_with(
    tmp_path: Path, header: Header, full_disk: Callable[[int], AbstractContextManager[None]]
) -> None:
    path = tmp_path / "x.edits.jsonl"
    with Store(path, header) as store:
        store.add(row(1))
        room = path.stat().st_size + 20
        with full_disk(room), pytest.raises(FidelityError, match="cannot be written"):
            store.add(row(2))
    with Store(path, header, resume=True) as store:
        assert list(store.rows) == ["run@1"]
        store.add(row(2))
    assert read_rows(path) == (header, [row(1), row(2)])
