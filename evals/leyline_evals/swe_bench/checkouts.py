"""Checkouts: an instance's repository as a folder of its own, at the commit it names."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from leyline_evals.solve.errors import EvalError
from leyline_evals.swe_bench.instances import Instance

__all__ = ["checkout", "commit", "git"]

# A commit's hash is that of its files alone: who and when are always the same.
_AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in {
        "NAME": "Leyline",
        "EMAIL": "leyline@localhost",
        "DATE": "2026-01-01T00:00:00+0000",
    }.items()
}
_OURS = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", **_AUTHOR}
_UNTRACKED = "__pycache__/\n*.pyc\n.pytest_cache/\n"


def checkout(instance: Instance, folder: Path, repos: Path | None = None) -> None:
    """Make the instance's repository in `folder`, which must not exist.

    Args:
        instance: with its files, or one whose repository is cloned in `repos`.
        folder: where to.
        repos: a folder with clones, `OWNER__NAME` each.

    Raises:
        EvalError: there is no such repository or commit, or the files make another commit.
    """
    if instance.files:
        made = commit(instance.files, folder)
        if made != instance.base_commit:
            raise EvalError(
                f"{instance.instance_id}: its files make commit {made}, not {instance.base_commit}"
            )
    else:
        _clone(instance, folder, repos)
    (folder / ".git" / "info" / "exclude").write_text(_UNTRACKED)


def commit(files: Mapping[str, str], folder: Path) -> str:
    """Write files into a new repository, and commit them; the commit's name.

    Raises:
        EvalError: a path leads out of the folder.
    """
    _begin(folder)
    for name, text in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or {"..", ".git"} & set(path.parts):
            raise EvalError(f"a repository has no file {name!r}")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="")
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-q", "-m", "The repository as it is given")
    return git(folder, "rev-parse", "HEAD").strip()


def _begin(folder: Path) -> None:
    """An empty repository."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main", "--template=")
    (folder / ".git" / "info").mkdir(exist_ok=True)


def git(folder: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        EvalError: git is missing, or failed.
    """
    command = ["git", "-C", str(folder), "-c", "core.autocrlf=false", *arguments]
    try:
        done = subprocess.run(
            command, env=os.environ | _OURS, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise EvalError(f"git cannot be run ({error}); install git") from error
    if done.returncode:
        raise EvalError(f"git {arguments[0]} in {folder} failed: {done.stderr.strip()[-400:]}")
    return done.stdout


def _clone(instance: Instance, folder: Path, repos: Path | None) -> None:
    origin = repos / instance.repo.replace("/", "__") if repos is not None else None
    if origin is None or not origin.is_dir():
        raise EvalError(
            f"{instance.instance_id} has no files of its own: its repository {instance.repo} is in "
            f"the image {instance.image}, which needs Docker; or name a folder that holds a clone "
            f"{instance.repo.replace('/', '__')} with --repos"
        )
    try:
        base = git(origin, "rev-parse", "--verify", f"{instance.base_commit}^{{commit}}")
    except EvalError as error:
        raise EvalError(
            f"{instance.instance_id}: no commit {instance.base_commit} in its clone ({error}); "
            "fetch it there"
        ) from error
    _begin(folder)
    _fetch(folder, origin, base.strip())
    git(folder, "checkout", "-q", "--detach", base.strip())


def _fetch(folder: Path, origin: Path, base: str) -> None:
    """A commit and its past, and nothing else: later ones, and tags, tell an agent the answer."""
    # The commit need not be one that a branch or a tag names.
    serve = "git -c uploadpack.allowAnySHA1InWant=true upload-pack"
    bare = ("--no-tags", "--no-write-fetch-head", "--update-shallow")
    git(folder, "fetch", "-q", *bare, "--upload-pack", serve, "--", str(origin.resolve()), base)
