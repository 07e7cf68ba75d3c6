"""Predictions: patches in swebench's format, graded without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from leyline_evals.solve.config import cells
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.folder import RunFolder
from leyline_evals.swe_bench.bench import Grade
from leyline_evals.swe_bench.instances import Instance

if TYPE_CHECKING:
    from leyline_evals.swe_bench.driver import SweBench

__all__ = ["collect", "grade", "predicted"]

Prediction = dict[str, Any]


def predicted(name: str, instances: Sequence[Instance]) -> dict[str, Prediction]:
    """The predictions for some instances, by id.

    Args:
        name: "gold", "empty", or a .json or .jsonl file in swebench's format.
        instances: those to predict; what a file says of others is left out.

    Raises:
        EvalError: the file is not there, not in the format, or says nothing of these instances.
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
    return {one: found[one] for one in ids if one in found}


def grade(driver: SweBench, selection: Sequence[str], out: Path, workers: int) -> int:
    """Grade a driver's predictions into a folder: `preds.json`, swebench's logs and its report.

    Returns:
        The exit status: 1 when one could not be graded.
    """
    instances = driver.instances(selection)
    predictions = predicted(driver.predictions, instances)
    out.mkdir(parents=True, exist_ok=True)
    (out / "preds.json").write_text(json.dumps(predictions, indent=1) + "\n", encoding="utf-8")
    chosen = [one for one in instances if one.instance_id in predictions]

    def graded(instance: Instance) -> Grade:
        try:
            return driver.bench.grade(instance, predictions[instance.instance_id], out)
        except EvalError as error:
            return Grade(False, str(error), is_broken=True)

    with ThreadPoolExecutor(workers) as pool:
        grades = list(pool.map(graded, chosen))
    report = driver.bench.report(instances, predictions, out)
    _tell({one.instance_id: g for one, g in zip(chosen, grades, strict=True)}, report, out)
    return int(any(grade.is_broken for grade in grades))


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


def _tell(grades: Mapping[str, Grade], report: Mapping[str, Any], out: Path) -> None:
    table = Table("instance", "graded", "why", box=None)
    for name, grade in grades.items():
        told = "not graded" if grade.is_broken else "resolved" if grade.resolved else "unresolved"
        table.add_row(name, told, grade.detail)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"\n{sum(g.resolved for g in grades.values())} of {report['total_instances']} resolved; "
        f"{report['empty_patch_instances']} patches are empty. swebench's report, logs and "
        f"preds.json are in {out}",
        soft_wrap=True,
    )


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
