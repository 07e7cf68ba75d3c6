"""scripts/setup-env: picks an interpreter, makes an environment once, and says what is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "setup-env"


def setup_env(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_arguments_it_explains_itself() -> None:
    done = setup_env()
    assert done.returncode == 2
    assert "setup-env DIR MIN_PYTHON PIP_ARGUMENT" in done.stderr


@pytest.mark.parametrize("python", ["/no/such/python", "false"])
def test_an_unfit_interpreter_is_refused(tmp_path: Path, python: str) -> None:
    done = setup_env(str(tmp_path / "env"), "3.11", "--help", PYTHON=python)
    assert done.returncode == 1
    assert f"PYTHON={python} is not a Python >= 3.11" in done.stderr
    assert not (tmp_path / "env").exists()


def test_no_interpreter_is_new_enough(tmp_path: Path) -> None:
    done = setup_env(str(tmp_path / "env"), "9.0", "--help")
    assert done.returncode == 3
    assert "no Python >= 9.0" in done.stderr
    assert "PYTHON=/path/to/python" in done.stderr


def test_it_makes_an_environment_once_and_notices_changes(tmp_path: Path) -> None:
    """`pip install --help` stands for an installation, it needs no network."""
    folder = tmp_path / "env"
    first = setup_env(str(folder), "3.11", "--help", PYTHON=sys.executable)
    assert first.stdout.splitlines()[0].startswith(f"setup-env: making {folder} with Python 3.")
    assert first.stdout.splitlines()[-1] == f"setup-env: {folder} is ready"
    again = setup_env(str(folder), "3.11", "--help", PYTHON=sys.executable)
    assert again.stdout == f"setup-env: {folder} is up to date\n"
    other = setup_env(str(folder), "3.11", "--help", "--verbose")
    assert "making" not in other.stdout
    assert other.stdout.splitlines()[-1] == f"setup-env: {folder} is ready"


def test_a_failed_installation_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "env"
    arguments = (str(folder), "3.11", "--no-index", "no-such-package-of-leyline")
    for _ in range(2):
        done = setup_env(*arguments, PYTHON="")
        assert done.returncode != 0
        assert "installing into" in done.stdout
        assert "is ready" not in done.stdout


def test_uv_makes_and_fills_an_environment_when_it_is_named(tmp_path: Path) -> None:
    """`uv pip install --help` stands for an installation, as above."""
    folder = tmp_path / "env"
    uv = Path(sys.executable).with_name("uv")
    done = setup_env(str(folder), "3.11", "--help", PYTHON=sys.executable, UV=str(uv))
    assert done.stdout.splitlines()[-1] == f"setup-env: {folder} is ready"
    assert (folder / "pyvenv.cfg").read_text().count("uv = ") == 1
