"""What a pipeline of shell commands prints: parts of named files, or an output of its own."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace

from leyline_agent.signals.outputs import WHOLE, Limit, Lines, Piece, Read, Run
from leyline_agent.signals.shell import Command, is_literal

__all__ = ["QUIET", "Sed", "pieces", "resolve"]

# Programs whose output nobody comes back to.
QUIET = frozenset(
    ". : [ alias cd chmod chown cp date echo export false kill ln mkdir mv printf pwd rm rmdir set "
    "sleep source test touch true unset wait".split()
)
_WHOLE_READERS = frozenset("bat batcat cat less more".split())
_SED_RANGE = re.compile(r"\s*(\d+)\s*(?:,\s*(\+?)(\d+|\$)\s*)?p\s*")
_COUNT = re.compile(r"(?:-n|--lines=|-)([+-]?\d+)")


def resolve(path: str, directory: str) -> str:
    """A path as seen from `directory`, normalised; relative when `directory` is unknown."""
    if path.startswith("~"):
        return posixpath.normpath(path)
    return posixpath.normpath(posixpath.join(directory, path))


def pieces(commands: Sequence[Command], directory: str) -> list[Piece]:
    """The pieces a pipeline shows when it runs in `directory`."""
    reads = _reads(commands[0], directory)
    for stage in commands[1:]:
        if reads is None:
            break
        reads = _narrow(reads, stage)
    if reads is not None:
        return list(reads)
    if all(map(_quiet, commands)):
        return []
    return [_run(commands, directory)]


def _quiet(command: Command) -> bool:
    return command.program in QUIET or (command.program == "sed" and Sed(command.words).in_place)


def _run(commands: Sequence[Command], directory: str) -> Run:
    """An output of its own; a final `head` or `tail` limits what is shown of it."""
    stages = list(commands)
    limit = None
    while len(stages) > 1 and limit is None:
        last = stages[-1]
        if last.program in ("head", "tail") and (count := _count(last.words)).isdigit():
            limit = Limit(last.program, int(count))
        elif last.words != ("cat",):
            break
        stages.pop()
    key = tuple((stage.words, stage.source, stage.heredoc) for stage in stages)
    return Run(("shell", directory, *key), limit)


def _reads(command: Command, directory: str) -> list[Read] | None:
    """The file parts a command prints; None when it is no plain reader of named files."""
    program = command.program
    files = [word for word in command.words[1:] if not word.startswith("-")]
    parts: list[Lines] | None = [WHOLE]
    if program == "sed":
        sed = Sed(command.words)
        files, parts = sed.files, sed.ranges()
        if sed.in_place:
            return None
    elif program in ("head", "tail"):
        files, parts = _operands(command.words), _end(command)
    elif program == "nl":
        files = files[-1:]
    elif program not in _WHOLE_READERS:
        return None
    files = files or [command.source]
    if not all(map(is_literal, files)):
        return None
    paths = [resolve(path, directory) for path in files]
    if parts is None:
        return [Read(path, None, command.words) for path in paths]
    return [Read(path, part) for path in paths for part in parts]


def _narrow(reads: Sequence[Read], stage: Command) -> list[Read] | None:
    """What is left of file parts behind one more stage of a pipe; None when it is no reader."""
    program = stage.program
    if program in _WHOLE_READERS or program in ("nl", "tee"):
        options_only = all(word.startswith("-") for word in stage.words[1:])
        return list(reads) if options_only or program in ("nl", "tee") else None
    if program in ("head", "tail") and not _operands(stage.words):
        parts = _end(stage)
    elif program == "sed" and not Sed(stage.words).files:
        parts = Sed(stage.words).ranges()
    else:
        return None
    if len(reads) != 1 or parts is None or reads[0].lines is None:
        return [replace(read, lines=None, key=(*read.key, stage.words)) for read in reads]
    return [replace(reads[0], lines=reads[0].lines.within(part)) for part in parts]


def _end(command: Command) -> list[Lines] | None:
    """The lines `head` or `tail` prints; None when they depend on the file's length."""
    count = _count(command.words)
    if command.program == "head" and count.isdigit():
        return [Lines(1, int(count) + 1)]
    if command.program == "tail" and count[:1] == "+" and count[1:].isdigit():
        return [Lines(max(1, int(count[1:])))]
    return None


def _count(words: Sequence[str]) -> str:
    """The number of lines given to `head` or `tail` ("10" when none); "" when it counts bytes."""
    for place, word in enumerate(words):
        if word in ("-n", "--lines"):
            return words[place + 1] if place + 1 < len(words) else ""
        match = _COUNT.fullmatch(word)
        if match:
            return match[1]
        if word.startswith(("-c", "--bytes")):
            return ""
    return "10"


def _operands(words: Sequence[str]) -> list[str]:
    """The file names among the arguments of `head` or `tail`."""
    return [
        word
        for before, word in zip(words, words[1:], strict=False)
        if not word.startswith(("-", "+")) and before not in ("-n", "-c", "--lines", "--bytes")
    ]


class Sed:
    """The arguments of one sed call.

    Attributes:
        in_place: whether it edits its files instead of printing.
        scripts: its scripts.
        files: the files it reads; empty when it reads a pipe.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.quiet = self.in_place = False
        self.scripts: list[str] = []
        self.files: list[str] = []
        before = ""
        for word in words[1:]:
            if before == "-e" or (before.startswith("-") and before.endswith("ne")):
                self.scripts.append(word)
            elif word.startswith("-") and len(word) > 1:
                self.quiet |= (
                    word in ("--quiet", "--silent") or re.match(r"-\w*n", word) is not None
                )
                self.in_place |= re.match(r"-[nErsuz]*i|--in-place", word) is not None
            else:
                self.files.append(word)
            before = word
        if not self.scripts and self.files:
            self.scripts.append(self.files.pop(0))

    def ranges(self) -> list[Lines] | None:
        """The line ranges it prints; None when it does anything else."""
        found: list[Lines] = []
        for part in ";".join(self.scripts).split(";"):
            match = _SED_RANGE.fullmatch(part)
            if not self.quiet or match is None:
                return None
            found.append(_lines(*match.groups()))
        return found


def _lines(first: str, plus: str | None, last: str | None) -> Lines:
    """The lines of a sed address like 5, 5,9 or 5,+4 or 5,$; always at least the first one."""
    start = int(first)
    if last == "$":
        return Lines(start)
    final = start if last is None else int(last) + (start if plus else 0)
    return Lines(start, max(final, start) + 1)
