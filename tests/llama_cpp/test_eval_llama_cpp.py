"""`leyline eval --model llama_cpp`, over the real llama.cpp with the embedded model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from solve_episodes import check_mechanisms, episode

from leyline_agent.cli import main
from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.backend import ModelConfig, connect
from leyline_evals.solve.driver import StepRecord
from leyline_evals.solve.errors import LimitReached
from leyline_evals.solve.in_process import InProcess

CONTEXT = 1024


@pytest.fixture(scope="module")
def backend(embedded_gguf: Path) -> Iterator[InProcess]:
    """For five episodes at once."""
    model = ModelConfig(name=f"llama_cpp/{embedded_gguf}", cells=CONTEXT)
    with connect(model, workers=5) as made:
        assert isinstance(made, InProcess)
        yield made


def test_every_mechanism_at_once_and_nothing_is_kept(backend: InProcess) -> None:
    def played(name: Mechanism) -> list[StepRecord]:
        return episode(backend, name, f"run/{name.value}", num_lines=5, reply_tokens=2, kept=2)

    with ThreadPoolExecutor(5) as pool:
        found = dict(zip(Mechanism, pool.map(played, Mechanism), strict=True))
    check_mechanisms(found)
    assert [step.modes for step in found[Mechanism.REPAIR]] == [{}, {}, {}, {"repair": 1}]
    assert not any(step.reasons for steps in found.values() for step in steps)
    assert all(step.ttft_ms for steps in found.values() for step in steps)
    assert backend.versions()["context"] == str(CONTEXT)
    assert backend._service.engine.num_used == 0  # type: ignore[attr-defined]


def test_an_episode_has_its_own_cells_and_no_others(backend: InProcess) -> None:
    with pytest.raises(LimitReached, match=f"context of {CONTEXT}") as reached:
        episode(backend, Mechanism.PREFIX_CACHE, "long", num_lines=200, reply_tokens=1)
    assert reached.value.limit == "context"


def test_a_run_on_the_command_line(
    embedded_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "sums", f"--model=llama_cpp/{embedded_gguf}", "--cells=1024", "--workers=2"]
    words += ["--num-tasks=1", "--seeds=1", "--steps=3", "--reply-tokens=16", "--repeats=0"]
    words += ["-p", "truncate_older_than:n=1,max_chars=50", "--mechanisms=forget,repair", "--json"]
    with pytest.raises(SystemExit, match="0"):
        main([*words, "--out", str(tmp_path / "run")])
    assert json.loads(capsys.readouterr().out)["done"] == 3
    rows = (tmp_path / "run" / "episodes.jsonl").read_text().splitlines()
    assert all(json.loads(row)["exact"] > 0 for row in rows)
    [sitting] = (tmp_path / "run" / "sittings.jsonl").read_text().splitlines()
    assert json.loads(sitting)["versions"]["context"] == str(CONTEXT)
