"""Instances: tasks in the format of swebench 5, from a file, the hub, or those shipped with us."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from leyline_evals.solve.errors import EvalError

__all__ = ["SHIPPED", "Instance", "Rows", "load", "select"]

SHIPPED = Path(__file__).parent / "shipped" / "instances.jsonl"
_OF_V5 = ("image", "eval_script", "log_parser", "eval_type")

Rows = Callable[[str, str], list[dict[str, Any]]]
"""Reads what is no JSON, by name and split: parquet, a folder, the hub."""


class Instance(BaseModel):
    """A task: a repository at a commit, what is wrong with it, and the tests that decide.

    Attributes:
        files: the whole repository by path, for instances that need no image; {} where the
            repository is in the image or in a clone.
        All others are swebench's.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    instance_id: str = Field(pattern=r"^\w[\w.-]*$")
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    version: str = ""
    base_commit: str = Field(pattern=r"^[0-9a-f]{7,64}$")
    problem_statement: str = Field(min_length=1)
    patch: str = ""
    test_patch: str = ""
    fail_to_pass: tuple[str, ...] = Field(alias="FAIL_TO_PASS")
    pass_to_pass: tuple[str, ...] = Field(alias="PASS_TO_PASS")
    image: str
    eval_script: str = Field(min_length=1)
    log_parser: str = Field(min_length=1)
    eval_type: str = Field(pattern="^(pass_and_fail|fail_only)$")
    image_assets: str | dict[str, Any] | None = None
    files: dict[str, str] = Field(default_factory=dict)

    @field_validator("fail_to_pass", "pass_to_pass", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """A list is often JSON in a string."""
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("files", mode="before")
    @classmethod
    def _none(cls, value: Any) -> Any:
        """A column that other rows have is null here."""
        return {path: text for path, text in (value or {}).items() if text is not None}

    @property
    def has_assets(self) -> bool:
        """Whether its tests need files that no patch can hold."""
        return self.image_assets not in (None, "", "{}", {})

    def row(self) -> dict[str, Any]:
        """The instance as swebench takes it."""
        return self.model_dump(mode="json", by_alias=True)


def load(name: str, split: str, rows: Rows) -> list[Instance]:
    """The instances of a dataset.

    Args:
        name: "shipped", a .jsonl or .json file, else what `rows` reads.
        split: for what has several.
        rows: reads the rest.

    Raises:
        EvalError: it is not there, or not in the format.
    """
    path = SHIPPED if name == "shipped" else Path(name)
    if path.suffix in (".jsonl", ".json", ".parquet") and not path.is_file():
        raise EvalError(f"dataset {name}: there is no such file")
    is_json = path.suffix in (".jsonl", ".json")
    found: Sequence[Any] = _json(path) if is_json else rows(name, split)
    instances = [_instance(name, number, row) for number, row in enumerate(found, start=1)]
    if not instances:
        raise EvalError(f"dataset {name}: it has no instances")
    ids = [instance.instance_id for instance in instances]
    twice = sorted({one for one in ids if ids.count(one) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise EvalError(f"dataset {name}: {', '.join(twice[:3])} is in it more than once")
    return instances


def select(instances: Sequence[Instance], patterns: Iterable[str]) -> list[Instance]:
    """Those whose id matches one of the patterns; all for none.

    Raises:
        EvalError: a pattern matches none.
    """
    wanted = list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(one.instance_id, pattern) for one in instances):
            some = ", ".join(one.instance_id for one in instances[:5])
            more = ", ..." if instances[5:] else ""
            raise EvalError(f"no instance matches {pattern!r}; there are {some}{more}")
    return [
        one
        for one in instances
        if not wanted or any(fnmatchcase(one.instance_id, pattern) for pattern in wanted)
    ]


def _json(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvalError(f"dataset {path}: {error}") from error
    if path.suffix == ".json":
        rows = _parsed(path, "", text)
        return list(rows) if isinstance(rows, list) else [rows]
    lines = enumerate(text.splitlines(), start=1)
    return [_parsed(path, f", line {place}", line) for place, line in lines if line.strip()]


def _parsed(path: Path, where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise EvalError(f"dataset {path}{where}: no JSON ({error})") from error


def _instance(name: str, number: int, row: Any) -> Instance:
    if not isinstance(row, Mapping):
        raise EvalError(f"dataset {name}, row {number}: an instance is an object, not {row!r:.60}")
    where = f"dataset {name}, row {number} ({row.get('instance_id', 'no instance_id')})"
    missing = [field for field in _OF_V5 if row.get(field) is None]
    if missing:
        raise EvalError(
            f"{where}: no {', '.join(missing)}. This is the format before swebench 5, which cannot "
            "be graded without them; fetch the dataset anew, or convert it with swebench 5"
        )
    try:
        return Instance.model_validate(row)
    except (ValidationError, ValueError, TypeError) as error:
        told = error.errors() if isinstance(error, ValidationError) else []
        what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in told[:3])
        raise EvalError(f"{where}: {what or error}") from error
