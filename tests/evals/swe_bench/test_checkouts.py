"""Checkouts: the same commit everywhere, nothing outside the folder, clones by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swe_bench_rows import shipped

from leyline_evals.solve.errors import EvalError
from leyline_evals.swe_bench.checkouts import checkout, commit, git
from leyline_evals.swe_bench.instances import Instance


def test_an_instance_s_files_make_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_AUTHOR_DATE", "2001-01-01T00:00:00Z")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text("[core]\n\tautocrlf = true\n[commit]\n\tgpgsign = true\n")
    instance = Instance.model_validate(shipped())
    checkout(instance, tmp_path / "repo")
    assert git(tmp_path / "repo", "rev-parse", "HEAD").strip() == instance.base_commit
    assert git(tmp_path / "repo", "status", "--porcelain") == ""


def test_files_that_make_another_commit_are_an_error(tmp_path: Path) -> None:
    changed = shipped(files={"a.py": "x = 1\n"})
    with pytest.raises(EvalError, match="its files make commit [0-9a-f]{40}, not 5f06"):
        checkout(Instance.model_validate(changed), tmp_path / "repo")


@pytest.mark.parametrize("path", ["../up.py", "/etc/x", ".git/hooks/pre-commit", "a/../../b"])
def test_no_file_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(EvalError, match="a repository has no file"):
        commit({path: "x"}, tmp_path / "repo")
    assert not (tmp_path / "up.py").exists()


@settings(max_examples=8, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_texts_are_kept_to_the_byte(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("texts") / "repo"
    commit({"a/b.txt": text}, folder)
    assert git(folder, "show", "HEAD:a/b.txt").encode() == text.encode() or "\r" in text
    assert (folder / "a" / "b.txt").read_bytes() == text.encode()


def test_a_clone_stands_in_for_an_image(tmp_path: Path) -> None:
    base = commit({"a.py": "x = 1\n"}, tmp_path / "repos" / "leyline__intervals")
    instance = Instance.model_validate(shipped(files={}, base_commit=base))
    checkout(instance, tmp_path / "repo", tmp_path / "repos")
    assert (tmp_path / "repo" / "a.py").read_text() == "x = 1\n"
    with pytest.raises(EvalError, match="needs Docker; or name .* clone leyline__intervals"):
        checkout(instance, tmp_path / "other", tmp_path)
    gone = Instance.model_validate(shipped(files={}, base_commit="0" * 40))
    with pytest.raises(EvalError, match="git checkout .* failed"):
        checkout(gone, tmp_path / "gone", tmp_path / "repos")


def test_git_is_told_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvalError, match="install git"):
        git(tmp_path, "init")
