"""Predictions: patches in swebench's format, graded without a model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from leyline_evals.solve.config import cells
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.folder import RunFolder
from leyline_evals.swe_bench.bench import Grade
from leyline_evals.swe_bench.instances import Instance

if TYPE_CHECKING:
    from leyline_evals.swe_bench.driver import SweBench

__all__ = ["GradedPatch", "Grades", "collect", "grade", "predicted", "tell"]

Prediction = dict[str, Any]


def predicted(
    name: str, instances: Sequence[Instance], known: Collection[str] = ()
) -> dict[str, Prediction]:
    """The predictions for some instances, by id.

    Args:
        name: "gold", "empty", or a .json or .jsonl file in swebench's format.
        instances: those to predict; what a file says of other known ones is left out.
        known: ids of the whole dataset; those of `instances` where empty.

    Raises:
        EvalError: the file is not there, not in the format, says nothing of these instances, or
            something of unknown ones.
    """
    if name in ("gold", "empty"):
        return {
            one.instance_id: _prediction(one.instance_id, name, one.patch if name == "gold" else "")
            for one in instances
        }
    found: dict[str, Prediction] = {}
    for number, row in enumerate(_rows(Path(name)), start=1):
        made = _checked(row, f"predictions {name}, entry {number}")
        if made["instance_id"] in found:
            raise EvalError(f"predictions {name}: {made['instance_id']} is there twice")
        found[made["instance_id"]] = made
    ids = [one.instance_id for one in instances]
    if not set(ids) & found.keys():
        raise EvalError(f"predictions {name}: none is for {', '.join(ids[:3])}")
    if unknown := [one for one in found if one not in {*ids, *known}]:
        raise EvalError(
            f"predictions {name}: {len(unknown)} are for no instance of the dataset: "
            f"{', '.join(unknown[:5])}{', ...' if unknown[5:] else ''}; take them out, or name "
            "their --dataset"
        )
    return {one: found[one] for one in ids if one in found}


class GradedPatch(BaseModel):
    """What became of one prediction; `detail` says why it is not resolved."""

    instance: str
    ended: Literal["resolved", "unresolved", "not_graded"]
    detail: str = ""


class Grades(BaseModel):
    """What became of predictions: `leyline eval swe-bench --predictions NAME --json`.

    Attributes:
        folder: where preds.json, the logs and swebench's report are.
        report: that report's file.
        total: instances, those without a prediction included.
        empty: predictions that change nothing.
    """

    format: Literal["leyline-swe-bench-grades"] = "leyline-swe-bench-grades"
    version: Literal[1] = 1
    folder: str
    report: str
    total: int
    resolved: int
    unresolved: int
    not_graded: int
    empty: int
    patches: list[GradedPatch]


def grade(driver: SweBench, selection: Sequence[str], out: Path, workers: int) -> Grades:
    """Grade a driver's predictions into a folder: `preds.json`, swebench's logs and its report."""
    instances = driver.instances(selection)
    predictions = predicted(driver.predictions, instances, driver.known())
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "preds.json").write_text(json.dumps(predictions, indent=1) + "\n", encoding="utf-8")
    chosen = [one for one in instances if one.instance_id in predictions]

    def graded(instance: Instance) -> GradedPatch:
        name = instance.instance_id
        try:
            found = driver.bench.grade(instance, predictions[name], out)
        except EvalError as error:
            found = Grade(False, str(error), is_broken=True)
        if found.is_broken:
            return GradedPatch(instance=name, ended="not_graded", detail=found.detail)
        ended: Literal["resolved", "unresolved"] = "resolved" if found.resolved else "unresolved"
        return GradedPatch(instance=name, ended=ended, detail=found.detail)

    with ThreadPoolExecutor(workers) as pool:
        patches = list(pool.map(graded, chosen))
    counted = Counter(patch.ended for patch in patches)
    return Grades(
        folder=str(out),
        report=str(out / driver.bench.report(instances, predictions, out)),
        total=len(instances),
        resolved=counted["resolved"],
        unresolved=counted["unresolved"],
        not_graded=counted["not_graded"],
        empty=sum(not one["model_patch"].strip() for one in predictions.values()),
        patches=patches,
    )


def tell(grades: Grades, as_json: bool) -> None:
    """Print grades: a table, or JSON alone."""
    if as_json:
        print(grades.model_dump_json(indent=2))
        return
    table = Table("instance", "graded", "why", box=None)
    for patch in grades.patches:
        table.add_row(patch.instance, patch.ended.replace("_", " "), patch.detail)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"\n{len(grades.patches)} of {grades.total} instances have a prediction; "
        f"{grades.resolved} resolved, {grades.empty} empty. "
        f"swebench's report is {grades.report}; its logs and preds.json are beside it.",
        soft_wrap=True,
    )


def collect(run: RunFolder) -> None:
    """Put the predictions of a run's episodes together, `predictions/ARM/SEED/preds.json`, in
    swebench's format, so that anybody can grade them again.
    """
    finished = run.rows()
    together: dict[Path, dict[str, Prediction]] = {}
    for cell in cells(run.config):
        made = run.episode(cell) / "prediction.json"
        if (cell.arm.name, cell.task, cell.seed) in finished and made.is_file():
            prediction = json.loads(made.read_text(encoding="utf-8"))
            prediction["model_name_or_path"] = f"{cell.arm.slug}.{cell.seed}"
            folder = run.path / "predictions" / cell.arm.slug / str(cell.seed)
            together.setdefault(folder, {})[cell.task] = prediction
    for folder, predictions in together.items():
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(predictions, indent=1) + "\n"
        (folder / "preds.json").write_text(text, encoding="utf-8")


def _prediction(instance: str, model: str, patch: str) -> Prediction:
    return {"instance_id": instance, "model_name_or_path": model, "model_patch": patch}


def _rows(path: Path) -> list[Any]:
    if path.suffix not in (".json", ".jsonl"):
        raise EvalError(f"predictions {path}: gold, empty, or a .json or .jsonl file")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        whole = json.loads(text)
    except (OSError, ValueError) as error:
        raise EvalError(f"predictions {path}: {error}") from error
    if not isinstance(whole, dict | list):
        raise EvalError(f"predictions {path}: a list or an object of predictions")
    return list(whole.values()) if isinstance(whole, dict) else whole


def _checked(row: Any, where: str) -> Prediction:
    if not isinstance(row, Mapping) or not isinstance(row.get("instance_id"), str):
        raise EvalError(f"{where}: an object with an instance_id, not {row!r:.80}")
    patch = row.get("model_patch")
    if patch is not None and not isinstance(patch, str):
        raise EvalError(f"{where}: model_patch is a diff as text, not {patch!r:.80}")
    return _prediction(
        row["instance_id"], str(row.get("model_name_or_path") or "file"), patch or ""
    )
