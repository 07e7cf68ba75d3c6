"""What replies ask of the loop, and how what they did is told, in both ways to speak."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from swe_bench_rows import shipped

from leyline_agent.message import Message
from leyline_evals.swe_bench.instances import Instance
from leyline_evals.swe_bench.script import gold
from leyline_evals.swe_bench.talk import Talk, instance_text, speech

BOTH: tuple[Talk, ...] = ("tools", "text")


def said(talk: Talk, command: str) -> Message:
    (reply,) = speech(talk).say([command])
    if isinstance(reply, str):
        return {"role": "assistant", "content": reply}
    assert isinstance(reply, dict)
    return reply


def calling(*calls: tuple[str, Any]) -> Message:
    made = [
        {"id": f"c{place}", "type": "function", "function": {"name": name, "arguments": given}}
        for place, (name, given) in enumerate(calls)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


@pytest.mark.parametrize("talk", BOTH)
def test_a_command_with_what_it_reads(talk: Talk) -> None:
    asked = speech(talk).asked(said(talk, "cat a.py && sed -i s/x/y/ b.py"), "abc")
    assert (asked.commands, asked.action) == (("cat a.py && sed -i s/x/y/ b.py",), "bash")
    assert (asked.reads, asked.writes) == (("a.py",), ("b.py",))


@pytest.mark.parametrize("talk", BOTH)
def test_submit_prints_the_patch_from_the_base_commit(talk: Talk) -> None:
    asked = speech(talk).asked(said(talk, "submit"), "abc123")
    assert asked.action == "submit"
    (command,) = asked.commands
    assert command.startswith("echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && ")
    assert " abc123 " in command


@pytest.mark.parametrize("talk", BOTH)
def test_outputs_are_told_as_the_signals_read_them(talk: Talk) -> None:
    way = speech(talk)
    output = {"output": "1 failed\n", "returncode": 1, "exception_info": ""}
    (message,) = way.observed(said(talk, "pytest"), [output])
    assert message["role"] == {"tools": "tool", "text": "user"}[talk]
    assert message["content"] == "<returncode>1</returncode>\n<output>\n1 failed\n</output>"
    ended = {"output": "", "returncode": -1, "exception_info": "the command timed out after 1 s"}
    assert "timed out after 1 s" in way.observed(said(talk, "x"), [ended])[0]["content"]


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ({"role": "assistant", "content": "I think it works."}, ["your reply calls no tool"]),
        (calling(("python", "{}")), ["Unknown tool 'python'"]),
        (calling(("bash", "{nonsense")), ["Invalid JSON in the arguments"]),
        (calling(("bash", "[1]")), ["Invalid JSON in the arguments"]),
        (calling(("bash", "{}")), ['Missing argument "command"']),
        (calling(("bash", '{"command": " "}')), ['Missing argument "command"']),
        (calling(("bash", '{"command": "ls"}'), ("x", "{}")), ["Not run", "Unknown tool 'x'"]),
    ],
)
def test_calls_of_which_nothing_can_be_made(reply: Message, told: list[str]) -> None:
    asked = speech("tools").asked(reply, "abc")
    assert asked.action == "malformed"
    assert not asked.commands
    assert len(asked.refusal) == len(told)
    for message, part in zip(asked.refusal, told, strict=True):
        assert part in message["content"]
    ids = [call["id"] for call in reply.get("tool_calls", ())]
    assert [message.get("tool_call_id") for message in asked.refusal] == (ids or [None])


@given(st.text(), st.text())
def test_nothing_a_model_says_is_too_odd(content: str, arguments: str) -> None:
    for reply in (
        {"role": "assistant", "content": content},
        {"role": "assistant", "content": None},
        calling(("bash", arguments), (content, json.dumps({"command": content}))),
    ):
        for talk in BOTH:
            asked = speech(talk).asked(reply, "abc")
            assert bool(asked.commands) != bool(asked.refusal)


def test_several_calls_are_several_commands() -> None:
    reply = calling(("bash", '{"command": "ls"}'), ("bash", '{"command": "cat a.py"}'))
    asked = speech("tools").asked(reply, "abc")
    assert (asked.commands, asked.reads) == (("ls", "cat a.py"), ("a.py",))
    outputs = [{"output": text, "returncode": 0} for text in "xy"]
    told = speech("tools").observed(reply, outputs)
    assert [message["tool_call_id"] for message in told] == ["c0", "c1"]


@pytest.mark.parametrize(
    "content", ["x = '$HOME'\n", "END_OF_FILE_0\n", "a\nEND_OF_FILE_0\nb\n", ""]
)
def test_a_file_is_written_by_a_command(tmp_path: Path, content: str) -> None:
    reply = {"role": "assistant", "content": f"```text sub/-new.txt\n{content}```"}
    asked = speech("text").asked(reply, "abc")
    assert (asked.action, asked.writes) == ("write_file", ("sub/-new.txt",))
    subprocess.run(["bash", "-c", asked.commands[0]], cwd=tmp_path, check=True)
    assert (tmp_path / "sub" / "-new.txt").read_text() == content


@pytest.mark.parametrize("talk", BOTH)
def test_the_script_looks_mends_and_submits(talk: Talk) -> None:
    way = speech(talk)
    replies = gold(Instance.model_validate(shipped("leyline__routes-4")), way)
    messages = [r if isinstance(r, dict) else {"role": "assistant", "content": r} for r in replies]
    asked = [way.asked(message, "abc") for message in messages]
    assert [one.action for one in asked] == ["bash"] * (len(asked) - 1) + ["submit"]
    assert asked[1].reads == ("routes/pattern.py",)


def test_the_model_is_told_the_problem_and_how_to_end() -> None:
    told = instance_text("It {is} broken.\n")
    assert "It {is} broken." in told
    assert "`submit`" in told
    assert "```bash" in speech("text").system()
