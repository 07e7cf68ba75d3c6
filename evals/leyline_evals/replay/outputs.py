"""Where a replay's figures and page go. Checked before anything runs; nothing heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from leyline_evals.replay.errors import ReplayError

__all__ = ["STDOUT", "beside", "check", "kept"]

STDOUT = Path("-")
"""As `--json`: standard output, which then gets nothing but the figures."""


def beside(report: Path) -> Path:
    """Where the runs of a report are kept: `out.json` has them in `out.runs.jsonl`."""
    return report.with_suffix(".runs.jsonl")


def kept(report: Path | None) -> Path | None:
    """`beside`, or None where the figures go to no file."""
    return None if report in (None, STDOUT) or not report.name else beside(report)


def check(outputs: Mapping[str, Path | None], inputs: Sequence[Path] = ()) -> None:
    """Fail now rather than after an hour, when an output cannot be written.

    Args:
        outputs: by the option that names it.
        inputs: files that must not be overwritten.

    Raises:
        ReplayError: no file can be made there, or it is an input or another output.
    """
    taken = {path.resolve(): "the recording to be read" for path in inputs}
    for option, path in outputs.items():
        if path is None or (path == STDOUT and option == "--json"):
            continue
        _check_file(path, option)
        if path.resolve() in taken:
            what = taken[path.resolve()]
            raise ReplayError(f"{option} {path} would overwrite {what}; name another file")
        taken[path.resolve()] = f"what {option} writes"


def _check_file(path: Path, option: str) -> None:
    folder = path.absolute().parent
    if path.name.startswith("-"):
        raise ReplayError(f"{option} needs a file, not {path} (of --json, - is standard output)")
    if path.is_dir():
        raise ReplayError(f"{option} {path}: a folder; name a file in it")
    if not folder.is_dir():
        raise ReplayError(f"{option} {path}: there is no folder {folder}; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ReplayError(f"{option} {path}: cannot be written; choose another place")
