"""What is said between the model and mini-swe-agent's loop, as tool calls or in plain text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from leyline_agent.message import Message, called, calls, text
from leyline_agent.signals.commands import shell_effects
from leyline_agent.signals.outputs import Read
from leyline_agent.testing.model import Reply, tool_call
from leyline_agent.trajectory import Observations
from leyline_evals.solve.protocol import (
    SHELL,
    Action,
    FileTool,
    Malformed,
    Toolset,
    instructions,
    observed,
    parse,
    written,
)

__all__ = ["Asked", "Speech", "Talk", "instance_text", "speech"]

Talk = Literal["tools", "text"]

TASK = """\
The repository in the current folder has a problem:

<problem>
{problem}
</problem>

Find the cause and change the repository's own files so that the problem is gone. Do not change
tests. Each command runs in a new shell in the repository's folder, without a network. Look before
you change, and run the code afterwards. {ending}
"""
_SYSTEM = "You mend bugs in programs, one small step at a time."
_SENTINEL = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"
_SUBMIT = (
    f"echo {_SENTINEL} && git add -A . && git -c core.quotePath=off diff --cached {{base}} -- ."
)
_TOOLS = Toolset(file=FileTool("write_file", "path", "content"))

BASH: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": SHELL,
        "description": "Run a command with bash in the repository's folder.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}


@dataclass(frozen=True)
class Asked:
    """What a reply asks the loop to do.

    Attributes:
        commands: to run, in order.
        action: in a word, for the step's record.
        reads, writes: paths, as far as commands tell.
        refusal: what answers a reply from which nothing can be made; then nothing is run.
    """

    commands: tuple[str, ...] = ()
    action: str = SHELL
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    refusal: tuple[Message, ...] = ()


class Speech(Protocol):
    """A way to speak."""

    @property
    def observations(self) -> Observations:
        """What a session must know of the history."""
        ...

    @property
    def tools(self) -> Sequence[Mapping[str, Any]] | None:
        """What the model is told of tools."""
        ...

    def system(self) -> str:
        """The system prompt."""
        ...

    def asked(self, reply: Message, base: str) -> Asked:
        """What a reply asks for; `base` is the commit the patch starts at."""
        ...

    def observed(self, reply: Message, outputs: Sequence[Mapping[str, Any]]) -> list[Message]:
        """The messages that tell a reply's commands' outputs."""
        ...

    def say(self, commands: Sequence[str]) -> list[Reply]:
        """The replies that ask for these commands, for scripts."""
        ...


def speech(talk: Talk) -> Speech:
    """The speech of a name."""
    return _Text() if talk == "text" else _Tools()


def instance_text(problem: str) -> str:
    """What the model is told of an instance."""
    ending = "When the problem is gone, the command `submit` alone ends the task."
    return TASK.format(problem=problem.strip(), ending=ending)


class _Text:
    """One fenced block a turn (`leyline_evals.solve.protocol`)."""

    observations: Observations = "user"
    tools = None

    def system(self) -> str:
        return f"{_SYSTEM}\n\n{instructions(_TOOLS)}"

    def asked(self, reply: Message, base: str) -> Asked:
        try:
            action = parse(text(reply))
        except Malformed as error:
            return Asked(action="malformed", refusal=(error.message,))
        if action.kind == "submit":
            return Asked((_SUBMIT.format(base=base),), "submit")
        if action.kind == "file":
            command = _writing(action.path, action.text)
            return Asked((command,), "write_file", writes=(action.path,))
        return _command(action.text, base)

    def observed(self, reply: Message, outputs: Sequence[Mapping[str, Any]]) -> list[Message]:
        return [observed(*_told(output)) for output in outputs]

    def say(self, commands: Sequence[str]) -> list[Reply]:
        return [f"Next.\n\n{written(Action('command', command))}" for command in commands]


class _Tools:
    """Calls of the one tool that mini-swe-agent has."""

    observations: Observations = "tool"
    tools: Sequence[Mapping[str, Any]] = (BASH,)

    def system(self) -> str:
        return f"{_SYSTEM}\n\nEach of your replies must call the tool {SHELL}."

    def asked(self, reply: Message, base: str) -> Asked:
        wrong = {str(call.get("id")): _wrong(call) for call in calls(reply)}
        if not wrong:
            told = f"Format error: your reply calls no tool. Call {SHELL}, for example with "
            return Asked(
                action="malformed",
                refusal=({"role": "user", "content": f'{told}{{"command": "ls -la"}}.'},),
            )
        if any(wrong.values()):
            refusal = [
                {"role": "tool", "tool_call_id": key, "content": what or "Not run: see the others."}
                for key, what in wrong.items()
            ]
            return Asked(action="malformed", refusal=tuple(refusal))
        each = [_command(_arguments(call)["command"], base) for call in calls(reply)]
        return Asked(
            tuple(command for one in each for command in one.commands),
            each[-1].action,
            tuple(path for one in each for path in one.reads),
            tuple(path for one in each for path in one.writes),
        )

    def observed(self, reply: Message, outputs: Sequence[Mapping[str, Any]]) -> list[Message]:
        return [
            {
                "role": "tool",
                "tool_call_id": call.get("id"),
                "content": observed(*_told(o))["content"],
            }
            for call, o in zip(calls(reply), outputs, strict=False)
        ]

    def say(self, commands: Sequence[str]) -> list[Reply]:
        return [tool_call(SHELL, content="Next.", command=command) for command in commands]


def _command(command: str, base: str) -> Asked:
    if command.strip() == "submit":
        return Asked((_SUBMIT.format(base=base),), "submit")
    effects = shell_effects(command, "")
    reads = (piece.path for piece in effects.shows if isinstance(piece, Read))
    action = "submit" if _SENTINEL in command else SHELL
    return Asked((command,), action, tuple(dict.fromkeys(reads)), tuple(effects.writes))


def _told(output: Mapping[str, Any]) -> tuple[str, int]:
    """Text and status of a command, with why it was ended."""
    ended = output.get("exception_info") or ""
    printed = str(output.get("output", ""))
    return (f"{ended}\n{printed}" if ended else printed), int(output.get("returncode", -1))


def _arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    given = called(call)[1]
    parsed = json.loads(given) if isinstance(given, str) else given
    return dict(parsed)


def _wrong(call: Mapping[str, Any]) -> str:
    """What is wrong with a call, for the model; "" when nothing is."""
    name = called(call)[0]
    if name != SHELL:
        return f"Unknown tool {str(name)[:60]!r}. The only tool is {SHELL}."
    try:
        command = _arguments(call).get("command")
    except (ValueError, TypeError) as error:
        return f"Invalid JSON in the arguments of {SHELL}: {error}."
    is_command = isinstance(command, str) and command.strip()
    return "" if is_command else f'Missing argument "command" of {SHELL}.'


def _writing(path: str, content: str) -> str:
    """A command that writes a file."""
    mark = next(mark for mark in _marks() if f"\n{mark}\n" not in f"\n{content}")
    folder = path.rpartition("/")[0] or "."
    return f"mkdir -p -- ./{folder} && cat > ./{path} <<'{mark}'\n{content}{mark}"


def _marks() -> Iterator[str]:
    number = 0
    while True:
        yield f"END_OF_FILE_{number}"
        number += 1
