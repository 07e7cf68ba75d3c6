"""A whole measurement with the tiny model: stopped, resumed, reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from leyline_agent.directive import Mode
from leyline_agent.serving.fidelity import fingerprint
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.render import ChatRenderer
from leyline_evals.fidelity.cases import Kind, Order
from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.html import page
from leyline_evals.fidelity.records import Config, EditRow
from leyline_evals.fidelity.runner import Measured, measure, plan
from leyline_evals.fidelity.store import Header, Store, read_rows
from leyline_evals.fidelity.words import setting

LIMIT = 3


class Counting:
    """Counts what is measured, not what was there."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def edit(self, row: EditRow, done: int) -> None:
        self.keys.append(row.key)


@pytest.fixture
def runs(runs_file: Callable[..., Path]) -> Path:
    return runs_file(9, 8, 7, chars=400)


@pytest.fixture
def measured(runs: Path, config: Config, tiny_model: LoadedModel) -> Measured:
    pairs = [("repair", "amortize")]
    return measure([runs], config, tiny_model, limit=LIMIT, pairs=pairs)


def test_a_report_of_everything(measured: Measured) -> None:
    report = measured.report
    assert report.complete
    assert report.asked == report.edits == LIMIT
    assert report.available is None  # nobody looked
    assert report.generated == 2
    assert set(report.arms) == set(Order)
    for own in report.arms.values():
        assert own["amortize"].recomputed == 0 < own["repair"].recomputed
        assert report.controls["noise"].kl_mean < own["amortize"].kl_mean
    first, last = (report.arms[order]["repair"] for order in Order)
    assert (first.calls, last.calls) == (2, 0)
    assert first.recomputed < last.recomputed  # new text counts towards the tail
    assert report.probes["honest"].copies == 1
    assert report.probes["amortize"].stale == 1
    assert report.probes["honest"].stale_nats == 0
    [compared] = report.comparisons
    assert compared.primary
    assert compared.edits == LIMIT
    own = report.arms[Order.EDIT_FIRST]
    assert compared.difference == pytest.approx(own["repair"].kl_mean - own["amortize"].kl_mean)
    assert report.floor is Mode.FORGET
    assert "too few to tell" in report.verdicts[0].why[0]
    for row in measured.rows:
        assert row.controls["honest"].kl < 1e-6
        assert row.controls["noise"].kl < 1e-4
        assert row.controls["honest"].same_call in (None, True)
        assert row.kind.recorded or row.controls["honest"].same_call is None
        assert all(own["repair"].kl >= 0 for own in row.arms.values())
    text = page(measured)
    assert "<svg" in text
    assert "repair - amortize (primary)" in text
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_stopped_measurement_goes_on(
    runs: Path, config: Config, tiny_model: LoadedModel, tmp_path: Path, measured: Measured
) -> None:
    keep = tmp_path / "out.edits.jsonl"
    first = Counting()
    started = measure([runs], config, tiny_model, limit=2, keep=keep, progress=first)
    assert started.report.edits == 2
    with keep.open("a", encoding="utf-8") as file:
        file.write('{"key": "cut o')  # killed while it wrote
    second = Counting()
    whole = measure(
        [runs], config, tiny_model, limit=LIMIT, keep=keep, resume=True, progress=second
    )
    assert first.keys + second.keys == [row.key for row in measured.rows]
    assert [row.key for row in whole.rows] == [row.key for row in measured.rows]
    _, rows = read_rows(keep)
    assert len(rows) == len(whole.rows)
    assert whole.report.arms[Order.EDIT_FIRST]["repair"].kl_mean == pytest.approx(
        measured.report.arms[Order.EDIT_FIRST]["repair"].kl_mean, rel=1e-3
    )


def test_another_measurement_is_not_resumed(
    runs: Path, config: Config, tiny_model: LoadedModel, tmp_path: Path
) -> None:
    keep = tmp_path / "out.edits.jsonl"
    measure([runs], config, tiny_model, limit=1, keep=keep)
    other = config.model_copy(update={"call_tokens": 5})
    with pytest.raises(FidelityError, match="another model or with other options"):
        measure([runs], other, tiny_model, limit=1, keep=keep, resume=True)


def test_two_at_once_are_told(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "out.edits.jsonl"
    header = Header(fingerprint="f", config=config)
    with Store(path, header), pytest.raises(FidelityError, match="another process measures into"):
        Store(path, header, resume=True)
    Store(path, header, resume=True).close()


def test_no_time_is_told(runs: Path, config: Config, tiny_model: LoadedModel) -> None:
    with pytest.raises(FidelityError, match="no edit was measured"):
        measure([runs], config, tiny_model, limit=1, seconds=0)


def test_what_does_not_fit_is_skipped_and_told(
    runs: Path, config: Config, tiny_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leyline_agent.errors import OutOfSlots
    from leyline_evals.fidelity.measure import Measurer

    real = Measurer.row
    tried: list[str] = []

    def first_fails(self: Measurer, case: object, *, calls: bool = False) -> EditRow:
        tried.append("")
        if len(tried) == 1:
            raise OutOfSlots("3 slots are free")
        return real(self, case, calls=calls)  # type: ignore[arg-type]

    monkeypatch.setattr(Measurer, "row", first_fails)
    found = measure([runs], config, tiny_model, limit=2)
    assert found.report.skipped == {"no room: 3 slots are free": 1}
    assert found.report.edits == 2
    assert len(found.rows) == 5  # two of them generated


@pytest.mark.parametrize(
    ("beyond", "skips", "complete"), [(1, False, False), (0, True, True), (1, True, False)]
)
def test_only_what_does_not_fit_may_be_missing(
    runs_file: Callable[..., Path],
    config: Config,
    tiny_model: LoadedModel,
    tmp_path: Path,
    beyond: int,
    skips: bool,
    complete: bool,
) -> None:
    """As the registration has it: no other edit stands for one that does not fit."""
    selection = config.selection.model_copy(update={"generated": 0, "edits": 1})
    lean = {"selection": selection, "calls": 0, "orders": (Order.EDIT_FIRST,)}
    config = config.model_copy(update=lean)
    file, keep = runs_file(9, chars=400), tmp_path / "out.edits.jsonl"
    cases = list(plan([file], ChatRenderer(tiny_model.tokenizer), config))
    with Store(keep, Header(fingerprint=fingerprint(tiny_model), config=config)) as store:
        for case in cases[1:] if skips else ():
            bare = EditRow(key=case.key, cluster=case.cluster, kind=case.kind, skipped="no room")
            store.add(bare)
    limit = len(cases) + beyond
    found = measure([file], config, tiny_model, limit=limit, keep=keep, resume=True).report
    assert found.complete is complete
    assert (found.asked, found.available) == (limit, len(cases))
    assert found.edits == (1 if skips else len(cases))
    said = f"; not finished: {found.edits} of {limit} edits asked for, there are no more"
    assert setting(found).endswith(said) is not complete


@pytest.mark.parametrize("every", [2, 1])
def test_generated_edits_alone(
    config: Config, tiny_model: LoadedModel, runs: Path, every: int
) -> None:
    selection = config.selection.model_copy(update={"generated": every})
    config = config.model_copy(update={"selection": selection, "orders": (Order.EDIT_FIRST,)})
    found = measure([runs] if every == 1 else [], config, tiny_model, limit=3)
    assert found.report.complete
    assert found.report.edits == 0
    assert found.report.asked == found.report.generated == 3
    assert {row.kind for row in found.rows} == {Kind.COPY, Kind.STALE, Kind.SECRET}


@pytest.mark.parametrize("text", ["", "{}\n", "not json\n", '{"format": "leyline-replay-runs"}\n'])
def test_a_file_of_something_else_is_told(tmp_path: Path, config: Config, text: str) -> None:
    path = tmp_path / "x.edits.jsonl"
    path.write_text(text)
    with pytest.raises(FidelityError, match="line 1: not of a fidelity measurement"):
        Store(path, Header(fingerprint="f", config=config), resume=True)
