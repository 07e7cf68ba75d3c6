"""A problem: a small repository that does not do what it should, and how one tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PDB", "PYTEST", "Problem"]

PYTEST = "python -m pytest -p no:cacheprovider"
# pytest has to leave the standard streams to the debugger.
PDB = "python -m pdb -m pytest -p no:cacheprovider -q -s"


@dataclass(frozen=True)
class Problem:
    """A repository to mend.

    Attributes:
        id: unique in its set.
        group: problems of a kind, for tables.
        instructions: what the agent is told.
        files: the repository as the agent gets it, by path.
        readonly: patterns, as in .gitignore, of what the agent may not change. Grading puts
            these files back.
        evaluate: the command behind the tool `eval`.
        debug: the command behind the tool `pdb`.
        hidden: files that only grading adds, or puts in the place of others.
        grade: the command that decides, of `PYTEST`: when the problem is solved all tests pass.
        tests: how many tests `grade` must have run; 0 when that is not known, and the files named
            in `grade` tell which.
        gold: the files that differ in the mended repository; empty when none is known.
        kinds: of the planted bugs; for tables.
    """

    id: str
    group: str
    instructions: str
    files: Mapping[str, str]
    readonly: tuple[str, ...]
    evaluate: str
    debug: str
    hidden: Mapping[str, str]
    grade: str
    tests: int = 0
    gold: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()
