"""What a model was found fit for: the report of `leyline fidelity`, read when an engine starts.

The engine takes two things of it: which model it is of, and the weakest mode that model is fit for.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from leyline_agent.directive import Mode
from leyline_agent.errors import EngineError
from leyline_agent.serving.models.load import LoadedModel
from leyline_agent.serving.repair import RepairConfig

__all__ = ["Fitness", "fingerprint", "fitness", "repair_set"]

_TENSORS = 16
_NUMBERS = 256


class Fitness(BaseModel):
    """The part of a fidelity report that an engine obeys.

    Attributes:
        fingerprint: of the model measured.
        repair: the repair set it was measured with.
        floor: the weakest mode it is fit for.
    """

    format: Literal["leyline-fidelity"]
    version: Literal[1]
    fingerprint: str
    repair: dict[str, int]
    floor: Mode


def repair_set(config: RepairConfig) -> dict[str, int]:
    """The budgets of a repair set, by name."""
    return {name: value for name, value in asdict(config).items() if isinstance(value, int)}


def fingerprint(model: LoadedModel) -> str:
    """A number for a model's shapes, numbers and some of its weights, as 16 hexadecimal digits.

    The same weights in another dtype are another model: how near a splice is depends on it.
    """
    digest = hashlib.sha256(f"{model.dtype} {model.facts.layers}".encode())
    for name, tensor in islice(model.model.named_parameters(), _TENSORS):
        some = tensor.detach().flatten()[:_NUMBERS].float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(some.numpy().tobytes())
    return digest.hexdigest()[:16]


def fitness(path: str | Path, model: LoadedModel, repair: RepairConfig) -> Fitness:
    """A report's verdict on a model that repairs as configured.

    Raises:
        EngineError: the file is no such report, or of another model or repair set.
    """
    found = _read(Path(path))
    own = fingerprint(model)
    if found.fingerprint != own:
        raise EngineError(
            f"{path} is of another model ({found.fingerprint}; this one, {model.name} in "
            f"{str(model.dtype).removeprefix('torch.')}, is {own}); measure this one with "
            "leyline fidelity"
        )
    if found.floor is Mode.REPAIR and found.repair != repair_set(repair):
        raise EngineError(
            f"{path} finds the model fit for the repair set {_shown(found.repair)}; this engine "
            f"repairs {_shown(repair_set(repair))}: use that set, or measure this one"
        )
    return found


def _read(path: Path) -> Fitness:
    try:
        value: Any = json.loads(path.read_text(encoding="utf-8"))
        return Fitness.model_validate(value)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, ValidationError) as error:
        raise EngineError(
            f"{path} is no report of leyline fidelity that this version reads; make one with "
            f"leyline fidelity --json {path.name}"
        ) from error


def _shown(budgets: dict[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(budgets.items()))
