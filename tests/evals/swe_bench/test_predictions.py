"""Predictions: gold, empty, and files in swebench's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from swe_bench_rows import shipped

from leyline_evals.solve.errors import EvalError
from leyline_evals.swe_bench.instances import Instance, load
from leyline_evals.swe_bench.predictions import GradedPatch, Grades, predicted, tell

ONE = {"instance_id": "leyline__shelf-2", "model_name_or_path": "m/x", "model_patch": "diff"}


def instances() -> list[Instance]:
    return load("shipped", "test", lambda name, split: [])


def test_gold_and_empty_are_for_every_instance() -> None:
    gold, empty = (predicted(name, instances()) for name in ("gold", "empty"))
    assert gold.keys() == empty.keys() == {one.instance_id for one in instances()}
    assert gold["leyline__shelf-2"] == {
        "instance_id": "leyline__shelf-2",
        "model_name_or_path": "gold",
        "model_patch": shipped("leyline__shelf-2")["patch"],
    }
    assert {one["model_patch"] for one in empty.values()} == {""}


@pytest.mark.parametrize("made", [[ONE], {"leyline__shelf-2": ONE}, ONE])
def test_files_are_read_as_swebench_reads_them(tmp_path: Path, made: Any) -> None:
    path = tmp_path / ("preds.jsonl" if made is ONE else "preds.json")
    path.write_text(json.dumps(made))
    assert predicted(str(path), instances()) == {"leyline__shelf-2": ONE}


def test_no_patch_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "preds.json"
    path.write_text(json.dumps([{"instance_id": "leyline__shelf-2", "model_patch": None}]))
    (made,) = predicted(str(path), instances()).values()
    assert (made["model_name_or_path"], made["model_patch"]) == ("file", "")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("preds.txt", "", "gold, empty, or a .json or .jsonl file"),
        ("preds.json", "{", "preds.json: Expecting"),
        ("preds.json", "[]", "none is for leyline__durations-3"),
        ("preds.json", "[1]", "entry 1: an object with an instance_id, not 1"),
        ("preds.json", "7", "a list or an object of predictions"),
        (
            "preds.json",
            '[{"instance_id": "x", "model_patch": 3}]',
            "1: model_patch is a diff",
        ),
        ("preds.jsonl", f"{json.dumps(ONE)}\n" * 2, "leyline__shelf-2 is there twice"),
    ],
)
def test_files_that_hold_no_predictions(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EvalError, match=told):
        predicted(str(tmp_path / name), instances())


def test_predictions_for_no_instance_of_the_dataset_are_named(tmp_path: Path) -> None:
    path = tmp_path / "preds.json"
    others = [{**ONE, "instance_id": name} for name in ("leyline__shelf-3", "x__y-1")]
    path.write_text(json.dumps([ONE, *others]))
    with pytest.raises(EvalError, match="2 are for no instance .*: leyline__shelf-3, x__y-1"):
        predicted(str(path), instances())
    path.write_text(json.dumps([ONE, {**ONE, "instance_id": "leyline__routes-4"}]))
    chosen = [one for one in instances() if one.instance_id == "leyline__shelf-2"]
    known = [one.instance_id for one in instances()]
    assert predicted(str(path), chosen, known) == {"leyline__shelf-2": ONE}, "not chosen, yet known"


def test_it_is_told_how_many_have_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    patch = GradedPatch(instance="leyline__shelf-2", ended="resolved")
    grades = Grades(
        folder="out", report="out/r.json", total=4, resolved=1, unresolved=0, not_graded=0,
        empty=0, patches=[patch],
    )  # fmt: skip
    tell(grades, as_json=False)
    assert "1 of 4 instances have a prediction; 1 resolved" in capsys.readouterr().out


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="No such file"):
        predicted(str(tmp_path / "none.json"), instances())
