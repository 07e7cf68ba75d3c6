"""What a shell command line reads, writes and runs.

Unknown programs are taken to show an output of their own and to write nothing that is known.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

from leyline_agent.signals.outputs import Effects, Piece, Run
from leyline_agent.signals.reading import Sed, pieces, resolve
from leyline_agent.signals.scripts import scripted_writes
from leyline_agent.signals.shell import Command, Pipeline, is_literal, parse

__all__ = ["pipelines", "shell_effects"]

_PREFIXES = frozenset("command env nice nohup stdbuf sudo time timeout".split())
_PREFIX_ARGUMENT = re.compile(r"-.*|\w+=.*")
_DURATION = re.compile(r"\d+(\.\d+)?[smhd]?")
_PYTHON = re.compile(r"python[\d.]*|pypy[\d.]*")


@lru_cache(maxsize=2048)
def shell_effects(text: str, directory: str = "") -> Effects:
    """What a command line does when it starts in `directory` ("" where that is unknown)."""
    opaque = Effects(shows=(Run(("shell", directory, text)),), directory=directory)
    line = _Line(directory)
    understood = pipelines(text)
    if understood is None:
        return opaque
    for pipeline in understood:
        first = pipeline.commands[0]
        if first.program in ("pushd", "popd"):
            return opaque
        if first.program == "cd":
            if not all(map(is_literal, first.words[1:])):
                return opaque
            line.directory = resolve([*first.words, "~"][1], line.directory)
        else:
            line.add(pipeline.commands)
    return line.effects()


@lru_cache(maxsize=1024)
def pipelines(text: str) -> tuple[Pipeline, ...] | None:
    """`shell.parse` with `sudo`, `time`, `timeout 60` and the like taken off the commands."""
    parsed = parse(text)
    if parsed is None:
        return None
    return tuple(replace(line, commands=tuple(map(_bare, line.commands))) for line in parsed)


def _bare(command: Command) -> Command:
    words = command.words
    while len(words) > 1 and words[0] in _PREFIXES:
        timed = words[0] == "timeout"
        words = words[1:]
        while len(words) > 1 and (
            _PREFIX_ARGUMENT.fullmatch(words[0]) or (timed and _DURATION.fullmatch(words[0]))
        ):
            words = words[1:]
    return replace(command, words=words)


class _Line:
    """Gathers the effects of one command line, pipeline by pipeline."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.shows: list[Piece] = []
        self.early: list[str] = []
        self.writes: list[str] = []
        self.scripts: list[tuple[str, tuple[str, ...]]] = []
        self.runs: list[tuple[str, str]] = []

    def add(self, commands: Sequence[Command]) -> None:
        self.early += self.writes
        self.writes = []
        for command in commands:
            if _PYTHON.fullmatch(command.program):
                self._add_run(*_python(command))
            elif command.program == "patch" or command.words[:2] == ("git", "apply"):
                self._add_run(*_patch(command))
            elif command.heredoc:
                writes = scripted_writes(command.heredoc)
                self.scripts += [(self._at(target), writes) for target in command.targets]
            self._add_writes((*command.targets, *_written(command)))
        if not commands[-1].silent:
            self.shows += pieces(commands, self.directory)

    def effects(self) -> Effects:
        return Effects(
            shows=tuple(dict.fromkeys(self.shows)),
            writes=tuple(dict.fromkeys((*self.early, *self.writes))),
            early_writes=tuple(dict.fromkeys(self.early)),
            scripts=tuple(self.scripts),
            runs=tuple(self.runs),
            directory=self.directory,
        )

    def _at(self, path: str) -> str:
        return resolve(path, self.directory)

    def _add_writes(self, paths: Iterable[str]) -> None:
        self.writes += [self._at(path) for path in paths if is_literal(path)]

    def _add_run(self, source: str, script: str) -> None:
        self._add_writes(scripted_writes(source))
        if is_literal(script):
            self.runs.append((self._at(script), self.directory))


def _python(command: Command) -> tuple[str, str]:
    """The source text given to a Python interpreter, and the script file it runs."""
    words = list(command.words[1:])
    while words and words[0].startswith("-") and words[0] != "-":
        option = words.pop(0)
        if option == "-c":
            return "".join(words[:1]), ""
        if option == "-m":
            return "", ""
        if option in ("-W", "-X"):
            del words[:1]
    script = "".join(words[:1])
    return (command.heredoc or "", "") if script in ("", "-") else ("", script)


def _patch(command: Command) -> tuple[str, str]:
    """The patch text given to `patch` or `git apply`, and the patch file they apply."""
    words = command.words[2:] if command.program == "git" else ()
    files = [word for word in words if not word.startswith("-")]
    return command.heredoc or "", command.source or "".join(files[:1])


def _written(command: Command) -> Iterable[str]:
    """The files a program changes or removes, apart from redirections."""
    program, words = command.program, command.words[1:]
    files = [word for word in words if not word.startswith("-")]
    if program == "sed":
        sed = Sed(command.words)
        return sed.files if sed.in_place else ()
    if program == "perl" and any(re.match(r"-\w*i", word) for word in words):
        return files[1:]
    if program in ("rm", "tee", "truncate", "black", "isort"):
        return files
    if program in ("cp", "mv") and len(files) > 1:
        return _copied(files[:-1], files[-1], removed=program == "mv")
    if program == "patch":
        return files[:1]
    if program == "git":
        return _git_written(words)
    return ()


def _copied(sources: Sequence[str], target: str, *, removed: bool) -> list[str]:
    """The target of cp or mv may be a folder: the copies inside it count as well."""
    inside = [posixpath.join(target, posixpath.basename(source)) for source in sources]
    return [target, *inside, *(sources if removed else ())]


def _git_written(words: Sequence[str]) -> Iterable[str]:
    if words[:1] not in (("checkout",), ("mv",), ("restore",), ("rm",)):
        return ()
    if "--" in words:
        return words[words.index("--") + 1 :]
    files = [word for word in words[1:] if not word.startswith("-")]
    if words[0] == "checkout":
        # Without "--" a bare word may be a branch; what looks like a file name is taken as one.
        return [word for word in files if "." in posixpath.basename(word) and word != "."]
    return files
