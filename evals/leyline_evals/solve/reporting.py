"""`leyline eval report` and `leyline eval compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from leyline_agent._version import __version__
from leyline_evals.solve import html as pages
from leyline_evals.solve import statistics, table
from leyline_evals.solve.arms import find
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.figures import comparison, pairs_of, run_report
from leyline_evals.solve.folder import RunFolder
from leyline_evals.solve.report import EvalComparison, EvalReport

__all__ = ["compare", "compared", "report"]


def report(runs: Sequence[Path], html: Path | None, json: bool) -> None:
    """Print what runs found, and write the page.

    Raises:
        EvalError: there is no run, or the page cannot be written.
        CorruptRun: a folder is damaged.
    """
    folders = [RunFolder.open(path) for path in runs]
    made = EvalReport(leyline=__version__, runs=[run_report(folder) for folder in folders])
    if html is not None:
        _write(html, pages.page(made))
    if json:
        print(made.model_dump_json(indent=2), flush=True)
    console = Console(stderr=json)
    if not json:
        table.show(made, console)
    if html is not None:
        console.print(f"report: {html}", highlight=False, soft_wrap=True, markup=False)


def compare(a: Path, b: Path, arms: Sequence[str], json: bool) -> None:
    """Print two runs side by side. Raises what `report` does."""
    found = compared(RunFolder.open(a), RunFolder.open(b), arms)
    if json:
        print(found.model_dump_json(indent=2), flush=True)
    else:
        table.show_comparison(found, Console())


def compared(a: RunFolder, b: RunFolder, arms: Sequence[str] = ()) -> EvalComparison:
    """Two runs, arm by arm, over the tasks and seeds that both have.

    Args:
        a: a run.
        b: another; the difference is b - a.
        arms: by name or mechanism; all that both have where empty.

    Raises:
        EvalError: they have no task or no arm in common.
    """
    ours = {task.id: task.digest for task in a.config.tasks}
    theirs = {task.id: task.digest for task in b.config.tasks}
    same = [task for task, digest in ours.items() if theirs.get(task) == digest]
    changed = [task for task in ours if task in theirs and task not in same]
    if not same:
        why = f"; {len(changed)} have other contents" if changed else ""
        raise EvalError(f"{a.path} and {b.path} have no task in common{why}")
    rows, others = a.rows(), b.rows()
    found = []
    for name in _shared(a, b, arms):
        pairs = pairs_of(name, name, same, rows, others)
        made = comparison(name, name, statistics.paired(pairs))
        first, second = f"{a.path.name}: {name}", f"{b.path.name}: {name}"
        found.append(made.model_copy(update={"first": first, "second": second}))
    holm = statistics.holm([one.p for one in found])
    return EvalComparison(
        leyline=__version__,
        a=a.path.name,
        b=b.path.name,
        tasks=len(same),
        changed=changed,
        arms=[o.model_copy(update={"p_holm": p}) for o, p in zip(found, holm, strict=True)],
        notes=list(_differences(a, b, changed)),
    )


def _shared(a: RunFolder, b: RunFolder, arms: Sequence[str]) -> list[str]:
    theirs = {arm.name for arm in b.config.arms}
    asked = [find(text, a.config.arms) for text in arms] or list(a.config.arms)
    names = [arm.name for arm in asked if arm.name in theirs]
    if not names:
        raise EvalError(
            f"no arm of {a.path} ({', '.join(arm.name for arm in asked)}) is one of {b.path} "
            f"({', '.join(theirs)})"
        )
    return names


def _differences(a: RunFolder, b: RunFolder, changed: Sequence[str]) -> Iterator[str]:
    """What else is not the same in both."""
    ours, theirs = a.config, b.config
    for name in ("driver", "model", "limits"):
        one, other = getattr(ours, name), getattr(theirs, name)
        for field in type(one).model_fields:
            if getattr(one, field) != getattr(other, field):
                yield f"{name}.{field}: {getattr(one, field)} against {getattr(other, field)}"
    others = {file.name: file.sha256 for file in theirs.policy_files}
    for file in ours.policy_files:
        if others.get(file.name, file.sha256) != file.sha256:
            yield f"policy file {file.name}: other code in {a.path.name} than in {b.path.name}"
    if changed:
        yield f"{len(changed)} tasks of both have other contents and are left out"
    yield "nothing of this was registered: it is secondary, and Holm-corrected over these arms"


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EvalError(f"--html {path}: cannot be written: {error.strerror}") from error
