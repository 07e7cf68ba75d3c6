"""Datasets: what is read, and what is refused with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from swe_bench_rows import shipped

from leyline_evals.solve.errors import EvalError
from leyline_evals.swe_bench.instances import Instance, load, select
from leyline_evals.swe_bench.shipped.build import FOLDER, built

OF_V4 = ("image", "eval_script", "log_parser", "eval_type", "files")


def none(name: str, split: str) -> list[dict[str, Any]]:
    raise AssertionError(f"{name} was asked of swebench")


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_shipped_instances_are_what_their_folders_make() -> None:
    folders = sorted(path.parent for path in FOLDER.glob("*/problem.md"))
    assert len(folders) == 4
    one = built(folders[1])
    assert shipped(one["instance_id"]) == one
    for folder in folders:
        row = shipped(folder.name)
        assert row["problem_statement"] == (folder / "problem.md").read_text()
        assert row["files"]["README.md"] == (folder / "repo" / "README.md").read_text()


def test_shipped_instances_have_tests_that_fail_and_tests_that_pass() -> None:
    for instance in load("shipped", "test", none):
        assert instance.fail_to_pass
        assert len(instance.pass_to_pass) > 4
        assert instance.patch
        assert instance.row()["FAIL_TO_PASS"] == list(instance.fail_to_pass)


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_lists_may_be_json_in_a_string(tmp_path: Path, suffix: str) -> None:
    row = shipped(FAIL_TO_PASS='["a"]', PASS_TO_PASS="[]", files=None, unknown=1)
    (found,) = load(written(tmp_path / f"data.{suffix}", row), "test", none)
    assert (found.fail_to_pass, found.pass_to_pass, found.files) == (("a",), (), {})


def test_a_dataset_before_swebench_5_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    old = {key: value for key, value in shipped().items() if key not in OF_V4}
    name = written(tmp_path / "old.jsonl", shipped("leyline__shelf-2"), old)
    with pytest.raises(
        EvalError,
        match=r"row 2 \(leyline__intervals-1\): no image, eval_script, "
        r"log_parser, eval_type. This is the format before swebench 5",
    ):
        load(name, "test", none)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no instances"),
        ("{", "line 1: no JSON"),
        ("[1]\n", "row 1: an instance is an object, not \\[1\\]"),
        (json.dumps(shipped(instance_id="../up")), "instance_id: String should match"),
        (json.dumps(shipped(instance_id="..")), "instance_id: String should match"),
        (json.dumps(shipped(FAIL_TO_PASS="a")), "row 1 .*: "),
        (json.dumps(shipped(eval_type="other")), "eval_type: String should match"),
        (f"{json.dumps(shipped())}\n" * 2, "leyline__intervals-1 is in it more than once"),
    ],
)
def test_what_is_no_dataset(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    with pytest.raises(EvalError, match=told):
        load(str(path), "test", none)


def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match="there is no such file"):
        load(str(tmp_path / "data.parquet"), "test", none)


def test_instances_by_pattern() -> None:
    instances = load("shipped", "test", none)
    assert [one.instance_id for one in select(instances, ["*shelf*"])] == ["leyline__shelf-2"]
    assert select(instances, []) == instances
    whole = r"no instance matches 'django'; there are leyline__dur.*-\d$"
    with pytest.raises(EvalError, match=whole):
        select(instances, ["leyline__*", "django"])


def test_a_row_is_an_instance_again() -> None:
    instance = Instance.model_validate(shipped())
    assert Instance.model_validate(instance.row()) == instance
