"""The report of `leyline fidelity`, as an engine reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import EngineError
from leyline_agent.lowering import Lowered
from leyline_agent.receipt import Reason
from leyline_agent.serving.engine import Engine, EngineConfig, Prompt
from leyline_agent.serving.fidelity import fingerprint, repair_set
from leyline_agent.serving.models.load import LoadedModel, load_model
from leyline_agent.serving.modes import ModeRules
from leyline_agent.serving.repair import RepairConfig


def report(model: LoadedModel, folder: Path, **changed: Any) -> Path:
    path = folder / "fidelity.json"
    value = {
        "format": "leyline-fidelity",
        "version": 1,
        "fingerprint": fingerprint(model),
        "repair": repair_set(RepairConfig()),
        "floor": "repair",
        "edits": 200,
    }
    path.write_text(json.dumps({**value, **changed}))
    return path


def engine(model: LoadedModel, path: Path, **config: Any) -> Engine:
    return Engine.of(model, EngineConfig(kv_bytes=4 << 20, fidelity_report=path, **config))


def test_the_floor_is_obeyed_and_told(tiny_model: LoadedModel, tmp_path: Path) -> None:
    served = engine(tiny_model, report(tiny_model, tmp_path), rules=ModeRules(gate_tokens=0))
    tokens = [3 + i % 90 for i in range(400)]
    base = served.start(Prompt(tokens, "a")).finish()
    edit = Directive(20, 60, (5,), Mode.AMORTIZE)
    new = [*tokens[:20], 5, *tokens[60:], 7]
    run = served.start(Prompt(new, "b", base, [Lowered(edit, (0,), edit.mode)], 1, version=2))
    [told] = run.receipt.edits
    assert (told.mode_asked, told.mode_used) == (Mode.AMORTIZE, Mode.REPAIR)
    assert told.reason is Reason.FIDELITY_FLOOR
    assert run.receipt.recomputed > 0


def test_a_stronger_floor_stays(tiny_model: LoadedModel, tmp_path: Path) -> None:
    rules = ModeRules(fidelity_floor=Mode.FORGET)
    path = report(tiny_model, tmp_path, floor="amortize")
    assert engine(tiny_model, path, rules=rules).config.rules.fidelity_floor is Mode.FORGET


def test_a_report_of_another_model_is_refused(
    tiny_model: LoadedModel, tiny_folder: Path, tmp_path: Path
) -> None:
    other = load_model(tiny_folder, dtype="bfloat16")
    assert fingerprint(other) != fingerprint(tiny_model)
    with pytest.raises(EngineError, match="is of another model"):
        engine(tiny_model, report(other, tmp_path))


def test_a_model_has_one_fingerprint(tiny_model: LoadedModel, tiny_folder: Path) -> None:
    assert fingerprint(load_model(tiny_folder, dtype="float32")) == fingerprint(tiny_model)


def test_another_repair_set_is_refused_where_it_counts(
    tiny_model: LoadedModel, tmp_path: Path
) -> None:
    weaker = RepairConfig(window=0)
    with pytest.raises(EngineError, match="window=16.*window=0"):
        engine(tiny_model, report(tiny_model, tmp_path), repair=weaker)
    path = report(tiny_model, tmp_path, floor="amortize")
    assert engine(tiny_model, path, repair=weaker).config.rules.fidelity_floor is Mode.AMORTIZE


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"format": "leyline-replay"}', "\udcff"])
def test_what_is_no_report_is_told(tiny_model: LoadedModel, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(EngineError, match="is no report of leyline fidelity"):
        engine(tiny_model, path)


def test_a_file_that_is_not_there_is_told(tiny_model: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        engine(tiny_model, tmp_path / "absent.json")
