"""The plain text action protocol: one action a turn, in one fenced block, for small models.

    ```bash                 a command; the name of a driver's tool as its first word calls it
    view calc.py
    ```

    ```python calc.py       a whole file, written anew: the block's label ends in its path
    def mean(xs):
        return sum(xs) / len(xs)
    ```

    ```bash                 the end of the task
    submit
    ```

What is around the block, and blocks that are neither, are talk: ```python without a path, or with a
word that is none (```python example). A path has a suffix or a slash: ./Makefile. A reply
without an action, with two, or with a block left open does nothing: `Malformed` says why in one
sentence with an example, which goes back to the model. What stands in a leading <think> is not
read. A file that holds fences itself stands in a block of longer ones.

A tool may have the name of a program, as grep has: what is more than a call of it (options, several
files, a pipe) is a command like any other. Behind another tool's name that is a mistake, and told.

A history is plain: assistant messages hold replies as they came, the user message behind each is
its observation. Sessions read it with `observations="user"`, so that policies edit observations as
they edit tool results.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from leyline_agent.errors import LeylineError
from leyline_agent.message import Message

__all__ = [
    "Action",
    "Call",
    "FileTool",
    "Malformed",
    "Toolset",
    "instructions",
    "observed",
    "parse",
    "written",
]

SHELL = "bash"
SUBMIT = "submit"
EXAMPLE = f"```{SHELL}\nls -la\n```"
FILE_EXAMPLE = "```python path/to/file.py\nthe whole file\n```"
MAX_CHARS = 10_000

_FENCE = re.compile(r"(`{3,})([^`]*)")
_PATH = re.compile(r"[\w.+@-]+(?:/[\w.+@-]+)*")
_SUFFIX = re.compile(r"\.[^\d.][^.]*$")  # "python 3.11" names no file.
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_SHELLS = re.compile(r"[|&;<>`]|\$\(")  # Where nothing quotes it.
_THOUGHT = ("<think>", "</think>")


class Malformed(LeylineError):
    """A reply from which no action can be made; its text is what to tell the model."""

    def __init__(self, what: str, example: str = EXAMPLE) -> None:
        super().__init__(
            f"Format error: {what}. Reply with exactly one action in one block, like this:\n\n"
            f"{example}"
        )

    @property
    def message(self) -> Message:
        """The user message that answers the reply."""
        return {"role": "user", "content": str(self)}


@dataclass(frozen=True)
class Action:
    """What a reply asks for.

    Attributes:
        kind: a command, a whole file, or the end of the task.
        text: the command, without a newline at its end; or the file, with one unless it is empty.
        path: of the file, relative to the repository.
    """

    kind: Literal["command", "file", "submit"]
    text: str = ""
    path: str = ""


class Call(NamedTuple):
    """A call of one of a driver's tools."""

    name: str
    arguments: dict[str, Any]


class FileTool(NamedTuple):
    """The tool that writes a whole file, and the names of its arguments."""

    name: str
    path: str
    content: str


@dataclass(frozen=True)
class Toolset:
    """A driver's tools, as actions name them.

    Attributes:
        shell: the tool that runs a command.
        command: its argument.
        file: the tool that writes a whole file; None when there is none.
        submit: the tool that ends the task.
        named: other tools, called by a command of one line whose first word is their name, each
            with its arguments in order. The only one of a tool takes the rest of the line as it
            is; several are words as a shell splits them, and may be left out from the right.
        numbers: those of these arguments that are whole numbers.
        programs: those of `named` that are programs too: what only the program takes is a command.
    """

    shell: str = SHELL
    command: str = "command"
    file: FileTool | None = None
    submit: str = SUBMIT
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()
    programs: frozenset[str] = frozenset()

    def call(self, action: Action) -> Call:
        """The call an action stands for.

        Raises:
            Malformed: the driver writes no files, or a named tool's arguments don't fit.
        """
        if action.kind == "submit":
            return Call(self.submit, {})
        if action.kind == "file":
            if self.file is None:
                raise Malformed("files are not written here, only commands are run")
            name, path, content = self.file
            return Call(name, {path: action.path, content: action.text})
        name, _, rest = action.text.partition(" ")
        if name not in self.named or "\n" in action.text or self._is_program(name, rest):
            return Call(self.shell, {self.command: action.text})
        return Call(name, self._arguments(name, rest.strip()))

    def _is_program(self, name: str, rest: str) -> bool:
        """Whether what stands behind a tool's name is for the program of this name."""
        if name not in self.programs:
            return False
        bare = _QUOTED.sub("_", rest).split()
        return (
            len(bare) > len(self.named[name])
            or any(re.match("-[-A-Za-z0-9]", word) for word in bare)
            or any(re.search("[*?[]", word) for word in bare[1:])  # The shell's patterns.
            or _SHELLS.search(" ".join(bare)) is not None
            or r"\|" in rest  # Means another thing to a tool than to grep.
        )

    def action(self, call: Call) -> Action:
        """The action that stands for a call: the inverse of `call`, for scripts of calls.

        Raises:
            LeylineError: nothing in the protocol makes this call.
        """
        action = self._action(call)
        if parse(written(action)) != action or self.call(action) != call:
            raise LeylineError(f"no plain text calls {call.name} with {call.arguments}")
        return action

    def _action(self, call: Call) -> Action:
        given = call.arguments
        if call.name == self.submit:
            return Action("submit")
        if self.file is not None and call.name == self.file.name:
            return Action("file", str(given.get(self.file.content)), str(given.get(self.file.path)))
        if call.name == self.shell:
            return Action("command", str(given.get(self.command)))
        names = self.named.get(call.name, ())
        values = [str(given[name]) for name in names if name in given]
        quoted = values if len(names) == 1 else map(shlex.quote, values)
        return Action("command", " ".join((call.name, *quoted)))

    def _arguments(self, name: str, rest: str) -> dict[str, Any]:
        names = self.named[name]
        usage = _block(SHELL, " ".join((name, *map(str.upper, names))))
        if len(names) != 1 and (found := _SHELLS.search(_QUOTED.sub("_", rest))):
            what = f"{name} is a tool, not a program: it stands alone, without {found[0]} behind it"
            raise Malformed(what, usage)
        try:
            words = [rest] if len(names) == 1 and rest else shlex.split(rest)
        except ValueError as error:
            raise Malformed(
                f"the arguments of {name} cannot be told apart ({error})", usage
            ) from error
        if len(words) > len(names):
            raise Malformed(f"{name} takes {len(names)} arguments, not {len(words)}", usage)
        given: dict[str, Any] = dict(zip(names, words, strict=False))
        for key in self.numbers & given.keys():
            if not re.fullmatch("[0-9]{1,9}", given[key]):
                raise Malformed(
                    f"{key} of {name} is a whole number, not {given[key][:40]!r}", usage
                )
            given[key] = int(given[key])
        return given


def parse(reply: str) -> Action:
    """The one action of a reply.

    Raises:
        Malformed: there is none, or more than one, or a block is not closed.
    """
    found = []
    bare = ""
    for label, lines in _blocks(reply):
        action = _action(label, lines)
        if action is not None:
            found.append(action)
        elif not bare:
            bare = label or "nothing"
    if len(found) > 1:
        raise Malformed(f"your reply holds {len(found)} actions")
    if found:
        return found[0]
    if bare:
        what = f"a block labelled {bare[:40]} is no action; {SHELL} labels a command, a path a file"
        raise Malformed(what, f"{EXAMPLE}\n\nor\n\n{FILE_EXAMPLE}")
    raise Malformed(f"your reply holds no block labelled {SHELL} and no file")


def written(action: Action) -> str:
    """The block that says an action: what `parse` reads back."""
    if action.kind == "file":
        label = action.path if _names_file(action.path) else f"text ./{action.path}"
        return _block(label, action.text)
    return _block(SHELL, action.text if action.kind == "command" else SUBMIT)


def observed(text: str, returncode: int | None = None, max_chars: int = MAX_CHARS) -> Message:
    """The user message that holds what an action printed, marked as Leyline's signals read it.

    Args:
        text: what it printed; what is over `max_chars` is cut out of its middle, and said so.
        returncode: of a command; None where there is none.
        max_chars: the most characters of it that the model sees.
    """
    if len(text) > max_chars:
        head, tail = max_chars - max_chars // 2, max_chars // 2
        missing = f"\n[{len(text) - max_chars} characters left out]\n"
        text = text[:head] + missing + text[len(text) - tail :]
    if returncode is not None:
        text = f"<returncode>{returncode}</returncode>\n<output>\n{text.rstrip()}\n</output>"
    return {"role": "user", "content": text}


def instructions(tools: Toolset) -> str:
    """What a model must know of the protocol, for the system prompt."""
    said = [
        "Each of your replies must hold exactly one action, in one fenced block. Either a command:",
        EXAMPLE,
    ]
    if tools.file is not None:
        said += ["or a whole file, written anew, with its path behind the language:", FILE_EXAMPLE]
    said += ["or, when the task is done:", _block(SHELL, SUBMIT)]
    if tools.named:
        usages = "\n".join(" ".join((n, *map(str.upper, a))) for n, a in tools.named.items())
        said += ["These commands call tools of this task:", usages]
    return "\n\n".join([*said, "You see what the action printed, then it is your turn again."])


def _blocks(reply: str) -> Iterator[tuple[str, list[str]]]:
    """Label and lines of each fenced block; a fence is closed by one at least as long."""
    if reply.lstrip().startswith(_THOUGHT[0]):
        reply = reply.partition(_THOUGHT[1])[2]
    lines = reply.replace("\r\n", "\n").split("\n")
    label, fence = "", ""
    inside: list[str] = []
    for line in lines:
        match = _FENCE.fullmatch(line.rstrip())
        if match and not fence:
            fence, label, inside = match[1], match[2].strip(), []
        elif match and not match[2] and len(match[1]) >= len(fence):
            yield label, inside
            fence = ""
        else:
            inside.append(line)
    if fence:
        raise Malformed(f"the block that opens with {fence}{label[:40]} is not closed")


def _action(label: str, lines: list[str]) -> Action | None:
    """What a block asks for; None when it is talk."""
    words = label.split()
    if words == [SHELL]:
        command = "\n".join(lines).strip("\n")
        if not command.strip():
            raise Malformed("the command is empty")
        return Action("submit") if command.strip() == SUBMIT else Action("command", command)
    if len(words) in (1, 2) and _names_file(words[-1]):
        return Action("file", "".join(f"{line}\n" for line in lines), _checked(words[-1]))
    return None


def _names_file(word: str) -> bool:
    """Whether a word of a label is a path, not a language or a remark."""
    return "/" in word or _SUFFIX.search(word) is not None


def _checked(path: str) -> str:
    """A path inside the repository; it may begin with ./"""
    path = path.removeprefix("./")
    if not _PATH.fullmatch(path) or {".", "..", ".git"} & set(path.split("/")):
        what = f"{path[:80]!r} is no path of a file below the repository's folder"
        raise Malformed(what, FILE_EXAMPLE)
    return path


def _block(label: str, text: str) -> str:
    longest = max((len(run) for run in re.findall(r"^`{3,}", text, re.MULTILINE)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{label}\n{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{fence}"
