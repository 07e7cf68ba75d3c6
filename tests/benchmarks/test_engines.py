"""The engines' benchmarks with the bundled engine at toy size: what they count and print."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.testing import tool_call

FOLDER = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))
try:
    import engine_fidelity
    import engine_peers
    import engines
finally:
    sys.path.remove(str(FOLDER))


def arms() -> list[Any]:
    return engines.arms_of(["bundled"])


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return engine_peers.Setup("smollm2-135m", 1, 8192, 1, tmp_path_factory.mktemp("engines"))


@pytest.mark.parametrize(
    ("script", "option", "value", "words"),
    [
        (engines, "--engines", "nosuch", "no engine is named 'nosuch'; there are bundled, vllm"),
        (engine_fidelity, "--engines", "vllm,", "no engine is named ''"),
        (engines, "--rounds", "0", "'0' is no whole number"),
        (engines, "--scale", "0", "'0' is no number above 0"),
        (engines, "--scale", "nan", "'nan' is no number above 0"),
        (engine_fidelity, "--turns", "-1", "'-1' is no whole number"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    script: Any,
    option: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", f"{option}={value}"])
    with pytest.raises(SystemExit):
        script.main()
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("script", [engines, engine_fidelity])
def test_the_help_names_the_engines(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit):
        script.main()
    assert "bundled,vllm,llama.cpp" in capsys.readouterr().out


@pytest.mark.model
def test_a_round_in_every_arm(setup: Any, tmp_path: Path) -> None:
    run = tmp_path / "run.json"
    run.write_text(json.dumps({"messages": recorded()}))
    with engine_peers.peers([("bundled", True)], setup) as found:
        both = {("bundled", splices): found["bundled", True] for splices in (True, False)}
        played = engines.play(arms(), both, rounds=1, scale=0.06, warmups=0)
        again = engine_fidelity.compared(
            both["bundled", True],
            "amortize",
            [str(run)],
            Options(policy="keep_last:n=2", runs=1, turns=1, tokens=2),
        )

    figures = {name: engines.figures_of(rounds) for name, rounds in played.items()}
    plain, amortize, repair = (figures[arm.name]["turns"] for arm in arms())
    assert plain["cut"]["reused_spliced"] == 0
    assert plain["cut"]["prefilled"] > amortize["cut"]["new"]
    for name in engines.EDITED:
        assert amortize[name]["prefilled"] == amortize[name]["new"]
        assert amortize[name]["reused_spliced"] > 0
        assert repair[name]["recomputed"] > 0
    for turn in (*plain.values(), *amortize.values(), *repair.values()):
        parts = ("reused_exact", "reused_spliced", "recomputed", "prefilled")
        assert turn["prompt"] == sum(turn[part] for part in parts)
    text = engines.table(arms(), figures)
    assert [line.count("|") for line in text.splitlines()] == [8] * 5
    assert engines.ratios(arms(), figures)["cut: bundled prefix_cache"] == 1.0
    assert [len(row["said"]["honest"]) for row in again] == [2]


def recorded() -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Look at the files."}]
    for name in ("one", "two", "three"):
        messages.append(tool_call("cat", id=name, path=name))
        found = f"{name} " + "says this and that, and a little more " * 12
        messages.append({"role": "tool", "tool_call_id": name, "content": found})
    return [*messages, {"role": "assistant", "content": "I looked."}]


class Options(dict[str, Any]):
    __getattr__ = dict.__getitem__


def test_an_engine_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_VLLM_PYTHON", "/nowhere/python")

    assert engine_peers.missing("vllm").startswith("vllm is left out: no .venvs/vllm (make test-")
    assert engine_peers.missing("bundled") == ""


def answer(*tokens: str, sure: float = 0.9) -> list[dict[str, Any]]:
    rest = math.log((1 - sure) / 2)
    return [{"token": t, "top": {t: math.log(sure), "else": rest}} for t in tokens]


def test_positions_end_with_the_first_that_differs() -> None:
    found = list(engine_fidelity.positions(answer("a", "b", "c"), answer("a", "x", "c")))

    assert [one.same for one in found] == [True, False]
    assert found[0].kl == 0.0
    assert found[1].kl > 0.5


@st.composite
def distributions(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    size = draw(st.integers(2, 8))
    weights = st.lists(st.floats(0.01, 1), min_size=size, max_size=size)
    one, other = draw(weights), draw(weights)
    return [w / sum(one) for w in one], [w / sum(other) for w in other]


@given(distributions(), st.integers(1, 8))
def test_the_likeliest_tokens_give_a_lower_bound(
    both: tuple[list[float], list[float]], top: int
) -> None:
    mine, theirs = both
    true = sum(p * math.log(p / q) for p, q in zip(mine, theirs, strict=True))

    def likeliest(values: list[float]) -> dict[str, float]:
        order = sorted(range(len(values)), key=lambda i: -values[i])[:top]
        return {str(i): math.log(values[i]) for i in order}

    found = engine_fidelity.kl(likeliest(mine), likeliest(theirs))

    assert 0 <= found <= true + 1e-6
    if top >= len(mine):
        assert found == pytest.approx(true, abs=1e-6)


def row(turn: int, spliced: list[dict[str, Any]]) -> dict[str, Any]:
    honest = answer("a", "b")
    said = {"honest": honest, "again": honest, "spliced": spliced}
    return {"turn": turn, "said": said, "reused_spliced": 100, "recomputed": 3}


def test_only_turns_that_every_arm_spliced_are_compared() -> None:
    near, far = answer("a", "b"), answer("a", "x")
    rows = {"one": [row(1, near), row(2, far)], "two": [row(2, near), row(3, near)]}

    found = {k: engine_fidelity.figures_of(v) for k, v in engine_fidelity.shared(rows).items()}

    assert found["one"]["spliced"]["agreement"][0] == 0.5
    assert found["two"]["spliced"]["agreement"][0] == 1.0
    assert found["one"]["noise_floor"]["kl"][0] == 0.0
    assert [line.count("|") for line in engine_fidelity.table(found).splitlines()] == [8] * 4
    with pytest.raises(SystemExit, match="no turn was spliced in every arm"):
        engine_fidelity.shared({"one": rows["one"][:1], "two": rows["two"]})
    json.dumps(found)


def test_files_are_named_without_this_machines_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYLINE_TRAJECTORIES", str(tmp_path))

    assert engine_fidelity.shown(str(tmp_path / "x" / "y.gz")) == "$LEYLINE_TRAJECTORIES/x/y.gz"
    assert engine_fidelity.shown(str(engine_fidelity.DEMO)).startswith("evals/")
    assert engine_fidelity.shown("/elsewhere/z.json") == "z.json"
