"""Policies that stand in files of the user's: their code belongs to what a run has registered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from leyline_evals.solve.errors import EvalError

__all__ = ["PolicyFile", "check", "files_of", "in_place"]

# Where a policy begins, up to the colon behind its file's name.
_FILE = re.compile(r"(?:^|(?<=[+(]))\s*([^+=,()|]+?\.py)(?=:)")


class PolicyFile(BaseModel):
    """A file as the run knows it.

    Attributes:
        name: as it stands in the arms' policies.
        path: where it is, absolute.
        sha256: of its bytes; what it imports is not part of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: str
    sha256: str


def files_of(policies: Iterable[str]) -> tuple[PolicyFile, ...]:
    """The files that policies, in their text form, are taken from; each name once.

    Raises:
        EvalError: one cannot be read.
    """
    names = dict.fromkeys(name for text in policies for name in _FILE.findall(text))
    paths = {name: Path(name).expanduser().resolve() for name in names}
    return tuple(
        PolicyFile(name=name, path=str(path), sha256=_sha256(path)) for name, path in paths.items()
    )


def in_place(policy: str, files: Sequence[PolicyFile]) -> str:
    """The policy's text with its files where they are, whatever directory this process is in."""
    paths = {file.name: file.path for file in files}
    return _FILE.sub(lambda found: paths.get(found[1], found[1]), policy)


def check(files: Iterable[PolicyFile], run: Path) -> None:
    """That the files are those a run was planned with.

    Raises:
        EvalError: one is gone, or has changed.
    """
    for file in files:
        path = Path(file.path)
        what = "is not there any more" if not path.is_file() else "has changed"
        if not path.is_file() or _sha256(path) != file.sha256:
            raise EvalError(
                f"policy file {path} {what} since {run} was planned: restore it as it was, or run "
                "anew in another folder"
            )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EvalError(f"policy file {path} cannot be read: {error.strerror}") from error
