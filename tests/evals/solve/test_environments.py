from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from leyline_evals.solve import environments
from leyline_evals.solve.environments import ENVIRONMENTS, Environment, find, make
from leyline_evals.solve.errors import EvalError

HERE = sys.version_info[:2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, and no interpreter but this one."""
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("LEYLINE_EVAL_PYTHON", raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def environment(low: tuple[int, int] = HERE, **others: object) -> Environment:
    made = {"low": low, "high": (low[0], low[1] + 1), "requirements": (), "told": ()}
    return Environment(**{**made, "module": "json", **others})  # type: ignore[arg-type]


def test_one_that_was_not_made_names_the_command(home: Path) -> None:
    with pytest.raises(EvalError, match="run `leyline eval setup debug-gym`"):
        find("debug-gym")
    with pytest.raises(EvalError, match="there are debug-gym"):
        make("chess")


def test_without_a_fitting_python_it_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "future", environment((3, 77), why="it is the future's"))
    with pytest.raises(
        EvalError, match=r"no Python 3\.77 with venv .*future.*LEYLINE_EVAL_PYTHON=/"
    ):
        make("future")
    monkeypatch.setenv("LEYLINE_EVAL_PYTHON", sys.executable)
    with pytest.raises(EvalError, match=f"LEYLINE_EVAL_PYTHON={sys.executable} is no Python"):
        make("future")
    monkeypatch.setenv("LEYLINE_EVAL_PYTHON", str(home / "nowhere"))
    with pytest.raises(EvalError, match=f"LEYLINE_EVAL_PYTHON={home}/nowhere: there is no such"):
        make("future")


def test_a_python_of_pyenv_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("3.4.1", "3.99.0"):
        folder = home / "pyenv" / "versions" / version / "bin"
        folder.mkdir(parents=True)
    (folder / "python3").symlink_to(sys.executable)
    monkeypatch.setattr(environments.shutil, "which", lambda name: None)
    assert environments._python(environment()) == str(folder / "python3")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_it_is_made_once_and_again_when_it_should_be_another(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYLINE_EVAL_PYTHON", sys.executable)
    monkeypatch.setitem(ENVIRONMENTS, "empty", environment())
    said: list[str] = []
    made = make("empty", said.append)
    assert made == find("empty")
    assert made.python.exists()
    assert made.versions == {"python": ".".join(map(str, sys.version_info[:3]))}
    assert made.base == Path(sys.base_prefix)
    make("empty", said.append)
    assert said[-1].endswith("is up to date")
    monkeypatch.setitem(ENVIRONMENTS, "empty", environment(module="json, os"))
    with pytest.raises(EvalError, match="out of date"):
        find("empty")
    stamp = made.folder / environments.STAMP
    stamp.write_text(json.dumps({"digest": 1}))
    with pytest.raises(EvalError, match="out of date"):
        find("empty")
    stamp.write_text("{")
    with pytest.raises(EvalError, match="no environment yet"):
        find("empty")


def test_what_cannot_be_installed_leaves_nothing_that_is_found(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEYLINE_EVAL_PYTHON", sys.executable)
    monkeypatch.setenv("UV", str(Path(sys.executable).with_name("uv")))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setitem(
        ENVIRONMENTS, "absent", environment(requirements=(f"{home}/no-such-folder",))
    )
    with pytest.raises(EvalError, match=r"failed \(\d\):\n[^|]*no-such-folder"):
        make("absent", lambda line: None)
    with pytest.raises(EvalError, match="no environment yet"):
        find("absent")


def test_a_folder_that_cannot_be_written_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "data").write_text("a file")
    monkeypatch.setenv("LEYLINE_EVAL_PYTHON", sys.executable)
    monkeypatch.setitem(ENVIRONMENTS, "empty", environment())
    with pytest.raises(EvalError, match="cannot be made"):
        make("empty", lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["uv", "pip"])
def test_debug_gym_is_installed(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEYLINE_HOME", str(tmp_path))
    if by == "pip":
        monkeypatch.setattr(environments.shutil, "which", _without_uv(environments.shutil.which))
    made = make("debug-gym")
    assert made.versions["debug-gym"] == "1.3.0"
    assert os.access(made.python, os.X_OK)


def _without_uv(which):  # type: ignore[no-untyped-def]
    return lambda name: None if name.endswith("uv") else which(name)
