from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from leyline_agent.signals.failed import Failure, failure, failures
from leyline_agent.signals.stub import stub
from leyline_agent.trajectory import ToolCall, ToolResult, Trajectory

Result = Callable[..., ToolResult]
Shell = Callable[..., Trajectory]

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n'
SUMMARY = "=========== 1 failed, 3 passed in 0.05s ==========="


def judged(shell: Shell, command: str, text: str, code: int = 0) -> Failure | None:
    return failure(shell((command, text, code)).tool_results[0])


# --- what the harness states -------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"is_error": True}, {"status": "error"}, {"extra": {"is_error": True}}]
)
def test_an_error_flag_speaks_first(result: Result, fields: dict[str, Any]) -> None:
    found = failure(result("<returncode>0</returncode>\nno such city", **fields))
    assert found == Failure("error_flag", "no such city", index=2)


@pytest.mark.parametrize("fields", [{"is_error": False}, {"status": "success"}, {"extra": None}])
def test_a_flag_that_is_not_set_says_nothing(result: Result, fields: dict[str, Any]) -> None:
    assert failure(result("fine", **fields)) is None


@pytest.mark.parametrize(
    "text",
    [
        "<returncode>3</returncode>\n<output>\nboom\n</output>",
        "boom\n[Command finished with exit code 3]",
        "boom\n[The command completed with exit code 3.]\n[Current working directory: /r]",
        "boom[Python Interpreter: /bin/py]\nme@box:/r # \n[Command finished with exit code 3]",
        "boom\n[exit code: 3]",
        "boom///PROCESS-DONE:3:PROCESS-DONE///\n(Open file: n/a)\n(Current directory: /r)\nbash-$",
        "Exit code: 3\nboom",
        "Process exited with code 3\nboom",
    ],
)  # fmt: skip
def test_exit_codes_of_many_harnesses(result: Result, text: str) -> None:
    found = failure(result(text))
    assert found is not None
    assert (found.kind, found.exit_code, found.stated) == ("exit_code", 3, True)
    assert "boom" in found.evidence
    assert found.summary.startswith("exit code 3: ")
    assert failure(result(text.replace("3", "0"))) is None


@pytest.mark.parametrize("extra", [{"returncode": 2}, {"exit_code": 2}])
def test_an_exit_code_beside_the_text(result: Result, extra: dict[str, Any]) -> None:
    found = failure(result("oops: invalid", extra=extra))
    assert found == Failure("exit_code", "oops: invalid", index=2, exit_code=2)


def test_a_status_in_the_middle_of_a_file_is_not_one(result: Result) -> None:
    shown = "log:\n" + "x\n" * 300 + "[Command finished with exit code 1]\n" + "y\n" * 300
    assert failure(result(shown)) is None


def test_a_timeout(result: Result) -> None:
    text = (
        "<exception>An error occurred while executing the command: Command '['docker', 'exec', "
        "'sleep 99']' timed out after 60 seconds</exception>\n<returncode>-1</returncode>\n"
        "<output>\n</output>"
    )
    found = failure(result(text, "bash", {"command": "sleep 99"}))
    assert found == Failure("timeout", "timed out after 60 seconds", index=2, exit_code=-1)


@pytest.mark.parametrize(
    "text",
    [
        "EXECUTION TIMED OUT\n(Open file: n/a)",
        "The command 'make' was cancelled because it took more than 30 seconds.",
        "x\n[The command timed out after 120 seconds. You may wait longer.]",
    ],
)
def test_timeouts_without_a_status(result: Result, text: str) -> None:
    found = failure(result(text, "bash", {"command": "make"}))
    assert found is not None
    assert found.kind == "timeout"


@pytest.mark.parametrize(
    "text",
    [
        "Error:\nError in code parsing:\nYour code snippet is invalid",
        "ERROR:\nParameter `old_str` is required for command: str_replace.",
        "Your output was not formatted correctly. You must always include one discussion",
        "Error: 2 validation errors for Payment\namount\n  Field required",
        "Missing required argument 'command' in tool call bash",
        "Unknown tool 'fly'",
        "No valid tool call found in LLM response.",
    ],
)
def test_calls_the_harness_could_not_make_out(result: Result, text: str) -> None:
    found = failure(result(text))
    assert found is not None
    assert found.kind == "malformed_call"
    assert found.stated
    assert found.evidence


def test_arguments_that_are_no_json(result: Result) -> None:
    call = ToolCall(1, "c", "bash", '{"command": "ls')
    found = failure(ToolResult(2, call, {"role": "tool", "content": "cannot parse"}))
    assert found == Failure("malformed_call", "cannot parse", index=2)
    ran = {"role": "tool", "content": "<returncode>0</returncode>\nok"}
    assert failure(ToolResult(2, call, ran)) is None


# --- what a status of 0 or 1 does not say --------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "cat test.log",
        "cat a | head -5",
        "grep -n Traceback a",
        "python a.py",
        "cd x && python a.py",
    ],
)
def test_a_status_of_zero_is_believed(shell: Shell, command: str) -> None:
    assert judged(shell, command, TRACEBACK + "ValueError: no") is None


@pytest.mark.parametrize(
    "command",
    [
        "python a.py 2>&1 | tail -20",
        "python a.py; echo done",
        "python a.py || true",
        "timeout 9 python a.py | cat",
        "python a.py\nls",
    ],
)
def test_a_status_the_shell_hid_is_not(shell: Shell, command: str) -> None:
    found = judged(shell, command, TRACEBACK + "ValueError: no")
    assert found is not None
    assert (found.kind, found.evidence, found.exit_code) == ("traceback", "ValueError: no", None)
    assert not found.stated
    assert judged(shell, command, "all well") is None


def test_a_hidden_failing_test_run(shell: Shell) -> None:
    found = judged(shell, "pytest -q | tail -5", f"x\n{SUMMARY}")
    assert found == Failure("tests_failed", SUMMARY, index=2)
    assert judged(shell, "pytest -q | tail -5", "====== 4 passed in 0.05s ======") is None
    assert judged(shell, "pytest -q | tail -5", "== 2 passed, 1 warning ==") is None


@pytest.mark.parametrize(
    "text",
    [
        "/usr/bin/python: No module named pytest",
        "bash: line 1: pytest: command not found",
        "ls: cannot access 'x': No such file or directory",
        "python: can't open file '/r/a.py': [Errno 2] No such file or directory",
        "collecting\nERROR: file or directory not found: tests",
        "fatal: not a git repository",
    ],
)
def test_a_hidden_complaint(shell: Shell, text: str) -> None:
    found = judged(shell, "pytest | tail -5", text)
    assert found is not None
    assert (found.kind, found.evidence) == ("error_text", text.splitlines()[-1])


@pytest.mark.parametrize(
    "command", ["grep x a", "cat a | grep -v x", "diff a b", "git diff --no-index a b", "test -f a"]
)
def test_status_one_of_a_question_is_an_answer(shell: Shell, command: str) -> None:
    assert judged(shell, command, "", 1) is None
    assert judged(shell, f"cd /r && {command}", "", 1) is None
    assert judged(shell, command, "grep: a: unreadable", 2) is not None


def test_a_question_does_not_answer_for_what_ran_before_it(shell: Shell) -> None:
    found = judged(shell, "python a.py && grep x a", TRACEBACK + "ValueError: no", 1)
    assert found is not None
    assert found.summary == "exit code 1: ValueError: no"
    assert judged(shell, "python a.py && grep x a", "", 1) is None


def test_no_output_leaves_the_status_alone(shell: Shell) -> None:
    found = judged(shell, "false", "", 1)
    assert found == Failure("exit_code", "", index=2, exit_code=1)
    assert found.summary == "exit code 1"


# --- what is read out of the text ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("Error: seat JKL not found", "Error: seat JKL not found"),
        ("ERROR:\nNo replacement was performed", "ERROR: No replacement was performed"),
        ("OBSERVATION:\nNo replacement was performed", "No replacement was performed"),
        ("Edit failed. Error message:\nread-only", "Edit failed. Error message: read-only"),
        ("Invalid pdb command: b a.py:14\n*** Blank", "Invalid pdb command: b a.py:14"),
        ("<observation>\nString 'x\n y' not found in a\n</observation>", "y' not found in a"),
        ("Your proposed edit has introduced errors", "Your proposed edit has introduced errors"),
        ("File a.py not found", "File a.py not found"),
        ("The path a.py does not exist. Try", "The path a.py does not exist. Try"),
        ("File already exists at: a.py", "File already exists at: a.py"),
        ("File a.py is too large (9 tokens)", "File a.py is too large (9 tokens)"),
        ("New string 'x\ny' already exists in a.py", "New string 'x"),
        ("<tool_use_error>No such file</tool_use_error>", "No such file"),
    ],
)
def test_an_answer_that_starts_with_an_error(result: Result, text: str, evidence: str) -> None:
    found = failure(result(text, "str_replace_editor", {"command": "view", "path": "a.py"}))
    assert found == Failure("error_text", evidence, index=2)


def test_a_file_being_shown_does_not_speak(result: Result) -> None:
    shown = f"Here's the result of running `cat -n`:\n 1\tError: x\n{TRACEBACK}ValueError: no\n"
    assert failure(result(shown, "view", {"path": "a.py"})) is None
    assert failure(result(shown, "unknown_tool", {})) is not None


def test_reading_commands_do_not_speak_without_a_status(result: Result) -> None:
    log = f"{TRACEBACK}ValueError: no"
    assert failure(result(log, "bash", {"command": "cat test.log"})) is None
    missing = "cat: test.log: No such file or directory"
    found = failure(result(missing, "bash", {"command": "cat test.log"}))
    assert found == Failure("error_text", missing, index=2)


def test_an_echoed_command_is_not_part_of_the_output(result: Result) -> None:
    text = f"python a.py\r\n{TRACEBACK}ValueError: no\nprinted late\n" + "line\n" * 20
    found = failure(result(text, "bash", {"command": "python a.py"}))
    assert found is not None
    assert found.evidence == "ValueError: no"


def test_a_traceback_in_the_middle_was_survived(result: Result) -> None:
    text = f"start\n{TRACEBACK}ValueError: no\n" + "carried on\n" * 20
    assert failure(result(text, "bash", {"command": "python a.py"})) is None


def test_a_traceback_cut_off_before_its_exception(result: Result) -> None:
    found = failure(result(TRACEBACK, "bash", {"command": "python a.py | head -3"}))
    assert found is not None
    assert found.evidence == "Traceback (most recent call last)"


def test_the_exception_is_found_behind_interleaved_output(shell: Shell) -> None:
    text = TRACEBACK.replace("\n", "\nEmpty array: []\n", 1) + "ValueError: no"
    found = judged(shell, "python a.py", text, 1)
    assert found is not None
    assert found.evidence == "ValueError: no"


def test_evidence_is_one_short_line(result: Result) -> None:
    found = failure(result("Error: " + "x" * 5000))
    assert found is not None
    assert len(found.evidence) <= 200


def test_an_orphan_result_is_judged_by_its_text() -> None:
    assert failure(ToolResult(1, None, {"role": "tool", "content": "Error: no such call"}))
    assert failure(ToolResult(1, None, {"role": "tool", "content": "fine"})) is None


# --- over a view ---------------------------------------------------------------------------------


def test_failures_are_told_by_place(shell: Shell) -> None:
    trajectory = shell(("false", "", 1), ("true", ""), ("false", "", 2))
    assert [(f.index, f.exit_code) for f in failures(trajectory)] == [(2, 1), (6, 2)]


def test_a_stubbed_failure_is_still_known_from_the_history(shell: Shell) -> None:
    trajectory = shell(("false", "no", 1), ("true", ""))
    edited = trajectory.edited([trajectory.tool_results[0].replace(stub("gone"))])
    assert failures(edited) == failures(trajectory)
    alone = Trajectory(messages=edited.messages)
    assert failures(alone) == ()
