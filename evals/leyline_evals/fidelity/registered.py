"""Registered tests: metric, sets, budget and exclusions, written down before they are run.

`registered.toml` is the registration; results carry its hash, so that a change of it shows.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from leyline_evals.fidelity.cases import Order
from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.records import Config, Row, Selection

__all__ = ["Registered", "Registration", "Test", "find", "registration"]

VARIABLE = "LEYLINE_TRAJECTORIES"


class Test(Row):
    """One model's test.

    Attributes:
        model: what is measured.
        limit: so many edits of recorded runs.
        orders: when the edits come.
        selection: which edits.
        calls: of so many edits one is asked for its next call.
    """

    model: str
    limit: int
    orders: tuple[Order, ...]
    selection: Selection
    calls: int = 0


class Registration(Row):
    """What was written down.

    Attributes:
        about: the question, the metric, the rules, in words.
        files: of recorded runs, below the folder that LEYLINE_TRAJECTORIES names.
        arms: what is compared, by name.
        pairs: comparisons, the primary one first.
        tests: by name.
    """

    about: dict[str, str]
    files: tuple[str, ...]
    arms: dict[str, str]
    pairs: tuple[tuple[str, str], ...]
    tests: dict[str, Test]


class Registered(NamedTuple):
    """A registered test, ready to run."""

    config: Config
    files: tuple[Path, ...]
    limit: int
    pairs: tuple[tuple[str, str], ...]


def registration() -> tuple[Registration, str]:
    """What is registered, and its hash (16 hexadecimal digits of SHA-256)."""
    content = files("leyline_evals.fidelity").joinpath("registered.toml").read_bytes()
    found = Registration.model_validate(tomllib.loads(content.decode()))
    return found, hashlib.sha256(content).hexdigest()[:16]


def find(name: str) -> Registered:
    """The registered test of that name.

    Raises:
        FidelityError: there is none, or its recorded runs are not here.
    """
    whole, digest = registration()
    test = whole.tests.get(name)
    if test is None:
        raise FidelityError(
            f"no test is registered as {name!r}; registered: {', '.join(whole.tests)}"
        )
    config = Config(
        model=test.model,
        files=whole.files,
        arms=whole.arms,
        orders=test.orders,
        selection=test.selection,
        calls=test.calls,
        registered=f"{name} {digest}",
    )
    return Registered(config, _here(whole.files), test.limit, whole.pairs)


def _here(names: tuple[str, ...]) -> tuple[Path, ...]:
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise FidelityError(f"{VARIABLE} has to name the folder of the recorded runs")
    found = tuple(Path(folder) / name for name in names)
    missing = [str(path) for path in found if not path.is_file()]
    if missing:
        raise FidelityError(f"{missing[0]} is not there; {VARIABLE} names another folder")
    return found
