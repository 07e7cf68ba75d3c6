"""Policies out of files: their code belongs to the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leyline_agent.cli import main
from leyline_evals.solve.policy_files import files_of, in_place

CODE = """\
from leyline_agent import Policy


class T(Policy):
    n: int = 1

    def edits(self, trajectory):
        return ()
"""
SUMS = ["eval", "sums", "--model", "scripted", "--num-tasks", 1, "--seeds", 1]


def leyline(*arguments: object) -> int:
    """The exit status of a command."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with a policy of `mine.py`, beside it, one of its episodes missing."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(CODE)
    assert leyline(*SUMS, "-p", "./mine.py:T:n=1", "--out", "run", "--for", "1s") == 0
    rows = Path("run/episodes.jsonl")
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:-1]))
    return tmp_path / "run"


def test_a_run_goes_on_from_another_directory(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = run.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    capsys.readouterr()
    assert leyline("eval", "resume", run, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["done"], told["left"]) == (1, 0)


AGAIN = [*SUMS, "-p", "./mine.py:T:n=1", "--out", "run"]
RESUME = ["eval", "resume", "run"]


@pytest.mark.parametrize(
    ("again", "code", "says"),
    [
        (RESUME, f"{CODE}# more", "has changed"),
        (RESUME, None, "is not there any more"),
        (AGAIN, f"{CODE}# more", "has changed"),
    ],
)
def test_other_code_is_refused_before_an_episode(
    run: Path,
    again: list[object],
    code: str | None,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, rows = run.parent / "mine.py", (run / "episodes.jsonl").read_text()
    if code is None:
        file.unlink()
    else:
        file.write_text(code)
    capsys.readouterr()
    assert leyline(*again) == 2
    assert f"policy file {file} {says}" in capsys.readouterr().err
    assert (run / "episodes.jsonl").read_text() == rows
    assert len((run / "sittings.jsonl").read_text().splitlines()) == 1


def test_files_are_found_wherever_a_policy_may_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py"):
        Path(name).write_text(CODE)
    texts = ["./a.py:T+keep_all", "every:policy=(dedupe+b.py:T:n=3),n=2", "x:pattern=c.py:12"]
    found = files_of(texts)
    assert [file.name for file in found] == ["./a.py", "b.py"]
    assert in_place(texts[0], found) == f"{tmp_path}/a.py:T+keep_all"
    assert in_place(texts[1], found) == f"every:policy=(dedupe+{tmp_path}/b.py:T:n=3),n=2"
    assert in_place(texts[2], found) == texts[2]
