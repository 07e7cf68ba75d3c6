"""The benchmarks there are, by the name of their command.

Each is a function that makes its driver out of the command's own options, and one, `make`, that
makes it again out of what a run has written down.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

from leyline_evals.solve.driver import Driver
from leyline_evals.solve.errors import EvalError

__all__ = ["DRIVERS", "DriverPlace", "again", "load"]


class DriverPlace(NamedTuple):
    """Where a benchmark is, both "module:name".

    Attributes:
        command: makes the driver; its parameters are the command's own options.
        make: makes the driver of `driver.options`.
    """

    command: str
    make: str


DRIVERS = {
    "debug-gym": DriverPlace(
        "leyline_evals.debug_gym.command:debug_gym", "leyline_evals.debug_gym.driver:make"
    ),
    "sums": DriverPlace("leyline_evals.solve.toy:sums", "leyline_evals.solve.toy:make"),
    "swe-bench": DriverPlace(
        "leyline_evals.swe_bench.command:swe_bench", "leyline_evals.swe_bench.driver:make"
    ),
}


def load(place: str) -> Any:
    """The object at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def again(name: str, options: dict[str, Any]) -> Driver:
    """The driver that a run was made with.

    Raises:
        EvalError: this Leyline has no such benchmark, or it takes these options no more.
    """
    if name not in DRIVERS:
        raise EvalError(f"no benchmark {name!r}; there are {', '.join(DRIVERS)}")
    make: Callable[..., Driver] = load(DRIVERS[name].make)
    try:
        return make(**options)
    except TypeError as error:
        raise EvalError(f"{name} takes not the options of this run any more: {error}") from error
