"""Failed tool calls, and what says that they failed.

Evidence is taken in order of trust, the first that speaks decides:

1. `error_flag`: the message itself says so (`is_error`, `status: "error"`).
2. `malformed_call`: the harness says it could not make out the call or its arguments.
3. `timeout`: the harness says it gave up waiting.
4. `exit_code`: a status other than 0, in the message's `extra` or in its text. A status of 0 ends
   the search: a successful `cat` of a file with a traceback in it is no failure.
5. Where no status is told, or where the shell hid it (`pytest | tail`): `traceback`,
   `tests_failed`, `error_text`.

Status 1 of `grep`, `diff` and `test` is an answer (no match, different, false), not a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from leyline_agent.signals import evidence
from leyline_agent.signals.commands import pipelines
from leyline_agent.signals.effects import BUILTIN, declared
from leyline_agent.signals.history import originals
from leyline_agent.signals.invocation import invocation
from leyline_agent.signals.memory import remembered
from leyline_agent.signals.reading import QUIET
from leyline_agent.signals.shell import Pipeline
from leyline_agent.signals.stub import is_stub
from leyline_agent.trajectory import ToolResult, Trajectory

__all__ = ["Failure", "FailureKind", "failure", "failures"]

FailureKind = Literal[
    "error_flag",
    "malformed_call",
    "timeout",
    "exit_code",
    "traceback",
    "tests_failed",
    "error_text",
]

# Programs that answer a question with status 1.
_ANSWERS = frozenset("[ cmp diff egrep fgrep grep pgrep rg test which zgrep".split())
# Programs whose output is text of files, which says nothing about the call.
_SHOWS_FILES = frozenset(
    "ag awk bat batcat cat cmp cut diff egrep fgrep file find git grep head less ls more nl od "
    "pgrep rg sed sort tail tee tree uniq wc which xargs xxd zgrep".split()
)


@dataclass(frozen=True)
class Failure:
    """A failed call and what says so.

    Attributes:
        kind: what said so; see the module's list.
        evidence: the telling line, quoted; "" when the output is empty.
        index: place of the result's message in the view.
        exit_code: the status told, None when none was.
    """

    kind: FailureKind
    evidence: str
    index: int = -1
    exit_code: int | None = None

    @property
    def stated(self) -> bool:
        """Whether the harness said so; otherwise it was read out of the output's text."""
        return self.kind in ("error_flag", "malformed_call", "timeout", "exit_code")

    @property
    def summary(self) -> str:
        """One line for people: what failed and how."""
        code = f"exit code {self.exit_code}" if self.exit_code is not None else ""
        return ": ".join(part for part in (code, self.evidence) if part)


def failures(trajectory: Trajectory) -> tuple[Failure, ...]:
    """The failed calls of a view, in order, judged by what the tools originally answered."""
    return remembered(trajectory, "failures", lambda: _failures(trajectory))


def _failures(trajectory: Trajectory) -> tuple[Failure, ...]:
    found = (
        (result.index, failure(original))
        for result, original in zip(trajectory.tool_results, originals(trajectory), strict=True)
    )
    return tuple(replace(failed, index=index) for index, failed in found if failed is not None)


def failure(result: ToolResult) -> Failure | None:
    """What says that the call behind `result` failed; None when nothing does."""
    return remembered(result, "failure", lambda: _failure(result))


def _failure(result: ToolResult) -> Failure | None:
    content = result.content
    if is_stub(content):
        return None
    found = _judge(content, _flagged(result.message), _told_code(result.message), _call(result))
    return replace(found, index=result.index) if found else None


@dataclass(frozen=True)
class _Call:
    """What of a call matters here: its shell command, or what kind of answer it gives."""

    command: str | None = None
    shows_files: bool = False
    malformed: bool = False


def _call(result: ToolResult) -> _Call:
    if result.call is None:
        return _Call()
    called = invocation(result.call)
    tool = declared(called, BUILTIN)
    command = called.arguments.get(tool.shell) if tool and tool.shell else None
    return _Call(
        command=command if isinstance(command, str) else None,
        shows_files=tool is not None and bool(tool.reads or tool.writes or tool.window),
        malformed=result.call.malformed,
    )


def _flagged(message: Mapping[str, Any]) -> bool:
    extra = message.get("extra")
    fields = [message, extra] if isinstance(extra, Mapping) else [message]
    return any(part.get("is_error") is True or part.get("status") == "error" for part in fields)


def _told_code(message: Mapping[str, Any]) -> int | None:
    extra = message.get("extra")
    if not isinstance(extra, Mapping):
        return None
    codes = (extra.get(name) for name in ("returncode", "exit_code"))
    return next((code for code in codes if isinstance(code, int)), None)


@lru_cache(maxsize=1024)
def _judge(content: str, flagged: bool, told_code: int | None, call: _Call) -> Failure | None:
    text = evidence.body(content)
    if call.command:
        # Some shells echo the command in front of its output.
        text = text.removeprefix(call.command).lstrip("\r\n")
    if flagged:
        return Failure("error_flag", evidence.telling_line(text))
    code = evidence.exit_code(content) if told_code is None else told_code
    quoted = evidence.malformed(text) if code is None else None
    if quoted or (call.malformed and code is None):
        return Failure("malformed_call", quoted or evidence.telling_line(text))
    quoted = evidence.timeout(content) if code in (None, -1, 124) else None
    if quoted:
        return Failure("timeout", quoted, exit_code=code)
    lines = pipelines(call.command) if call.command is not None else None
    if code is None:
        return _from_text(text, call, lines)
    if code == 0:
        return _from_run(text) if lines and _hides_status(lines) else None
    if code == 1 and lines and _answers(lines, text):
        return None
    return Failure("exit_code", evidence.telling_line(text), exit_code=code)


def _from_text(text: str, call: _Call, lines: tuple[Pipeline, ...] | None) -> Failure | None:
    """What the text says where no status is told."""
    if call.command is None:
        quoted = evidence.error_start(text)
        if quoted or call.shows_files:
            return Failure("error_text", quoted) if quoted else None
        return _from_run(text)
    if lines and all(c.program in _SHOWS_FILES | QUIET for line in lines for c in line.commands):
        quoted = evidence.shell_error(text)
        return Failure("error_text", quoted) if quoted else None
    return _from_run(text)


def _from_run(text: str) -> Failure | None:
    """What the output of a program says where its status is hidden or not told."""
    if quoted := evidence.traceback(text):
        return Failure("traceback", quoted)
    if quoted := evidence.tests_failed(text):
        return Failure("tests_failed", quoted)
    if quoted := evidence.shell_error(text):
        return Failure("error_text", quoted)
    return None


def _hides_status(lines: tuple[Pipeline, ...]) -> bool:
    """Whether a program's failure can hide behind a status of 0, as in `pytest | tail`."""
    told = True
    for line in reversed(lines):
        told = told and line.joiner in ("", "&&")
        hidden = line.commands[:-1] if told else line.commands
        if any(command.program not in _SHOWS_FILES | QUIET for command in hidden):
            return True
    return False


def _answers(lines: tuple[Pipeline, ...], text: str) -> bool:
    """Whether a status of 1 is the answer of a final `grep`, `diff` or `test`."""
    last = lines[-1].commands[-1]
    answers = last.program in _ANSWERS or last.words[:2] == ("git", "diff")
    if not answers or not text.strip():
        return answers
    before = (command for line in lines[:-1] for command in line.commands)
    return all(command.program in _SHOWS_FILES | QUIET for command in before)
