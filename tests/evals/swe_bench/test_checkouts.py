"""Checkouts: the same commit everywhere, nothing outside the folder, clones by name."""

from __future__ import annotations

from collections.abc import Callable
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
    with pytest.raises(EvalError, match="no commit 0000000.* in its clone .*fetch it there"):
        checkout(gone, tmp_path / "gone", tmp_path / "repos")


def grown(folder: Path) -> list[str]:
    """A repository that went on after its second commit; the names of its three commits."""
    made = [commit({"a.py": "x = 1\n"}, folder)]
    for text in ("x = 2\n", "x = the_fix\n"):
        (folder / "a.py").write_text(text)
        git(folder, "commit", "-q", "-a", "-m", text)
        made.append(git(folder, "rev-parse", "HEAD").strip())
    git(folder, "tag", "-a", "-m", "the_fix is out", "v2")
    git(folder, "branch", "later")
    git(folder, "reset", "-q", "--hard", made[1])
    (folder / "a.py").write_text("x = the_fix # stashed\n")
    git(folder, "stash")
    return made


def plain(repos: Path) -> None:
    """As it grew: loose objects, reflogs, a stash."""


def packed(repos: Path) -> None:
    git(repos / "leyline__intervals", "gc", "-q")


def lent(repos: Path) -> None:
    """A clone that borrows the objects of another."""
    (repos / "leyline__intervals").rename(repos / "whole")
    git(repos, "clone", "-q", "--shared", "whole", "leyline__intervals")


def bare(repos: Path) -> None:
    (repos / "leyline__intervals").rename(repos / "whole")
    git(repos, "clone", "-q", "--mirror", "whole", "leyline__intervals")


@pytest.mark.parametrize("kept", [plain, packed, lent, bare])
@pytest.mark.parametrize("digits", [40, 12])
def test_a_checkout_holds_nothing_of_what_came_later(
    tmp_path: Path, kept: Callable[[Path], None], digits: int
) -> None:
    first, base, _ = grown(tmp_path / "repos" / "leyline__intervals")
    kept(tmp_path / "repos")
    instance = Instance.model_validate(shipped(files={}, base_commit=base[:digits]))
    folder = tmp_path / "repo"
    checkout(instance, folder, tmp_path / "repos")
    assert (folder / "a.py").read_text() == "x = 2\n"
    assert git(folder, "status", "--porcelain") == ""
    assert git(folder, "log", "--all", "--format=%H", "HEAD").split() == [base, first]
    every = git(folder, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    reached = git(folder, "rev-list", "--objects", "--no-object-names", base).split()
    assert sorted(every) == sorted(reached)
    assert git(folder, "for-each-ref") == git(folder, "remote") == git(folder, "fsck") == ""
    inside = b"".join(f.read_bytes() for f in (folder / ".git").rglob("*") if f.is_file())
    assert str(tmp_path).encode() not in inside  # neither a remote nor an alternate leads back


def test_of_a_shallow_clone_there_is_the_past_it_has(tmp_path: Path) -> None:
    _, base, _ = grown(tmp_path / "whole")
    (tmp_path / "repos").mkdir()
    source, name = (tmp_path / "whole").as_uri(), "leyline__intervals"
    git(tmp_path / "repos", "clone", "-q", "--depth", "1", "--branch", "main", source, name)
    instance = Instance.model_validate(shipped(files={}, base_commit=base))
    checkout(instance, tmp_path / "repo", tmp_path / "repos")
    assert git(tmp_path / "repo", "log", "--all", "--format=%H", "HEAD").split() == [base]


def test_git_is_told_to_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvalError, match="install git"):
        git(tmp_path, "init")
