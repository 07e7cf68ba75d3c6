from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline_agent import Mode, PolicyError, Session
from leyline_agent.policy import parse
from leyline_agent.testing import MockAdapter, tool_call
from leyline_agent.trajectory import Trajectory
from leyline_policies.redact import Redact

Run = Callable[..., Trajectory]
Places = Callable[..., list[int]]

TOKEN = "ghp_" + "a1B2" * 10
SECRETS = [
    TOKEN,
    "github_pat_" + "a1_B" * 8,
    "AKIA" + "ABCD2345" * 2,
    "glpat-" + "x1-Y" * 6,
    "sk-proj-" + "a1B2" * 10,
    "sk-ant-api03-" + "a1B2" * 10,
    "xoxb-" + "1234-" * 4,
    "AIza" + "a1_-Z" * 7,
    "hf_" + "aB1" * 12,
    "eyJhbGciOiJIUzI1." + "eyJzdWIiOiIxMjM0.abcdefghijkl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMIIE cut off",
]
NONE = [
    "ghp_short",
    "sk-estimator-doc-link-label-arrow-container",
    "task-management-of-many-things-2024",
    "AKIAlower",
    "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
    "data:image/png;base64," + TOKEN,
    "eyJust.a.word",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_known_forms_are_taken_out(run: Run, secret: str) -> None:
    (edit,) = Redact().propose(run(("env", f"A=1\nTOKEN={secret}")))
    told = edit.replacement[0]["content"]
    assert "TOKEN=[redacted]" in told
    assert "A=1" in told
    assert secret not in told
    assert (edit.redact, edit.mode, edit.reason) == (True, Mode.FORGET, "secret")


@pytest.mark.parametrize("text", NONE)
def test_what_only_looks_like_one_stays(run: Run, places: Places, text: str) -> None:
    trajectory = Trajectory([{"role": "user", "content": "t"}, {"role": "user", "content": text}])
    assert places(Redact(), trajectory) == []


def test_wherever_it_stands() -> None:
    parts = [{"type": "text", "text": TOKEN}, {"type": "image_url", "image_url": {"url": "data:"}}]
    call = tool_call("bash", id="a", command=f"curl -H {TOKEN}")
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "task"},
        {"role": "user", "content": parts},
        dict(call),
        {"role": "tool", "tool_call_id": "a", "content": None},
    ]
    first, second = Redact().propose(Trajectory(messages))
    assert first.replacement[0]["content"] == [{"type": "text", "text": "[redacted]"}, parts[1]]
    (made,) = second.replacement[0]["tool_calls"]
    assert json.loads(made["function"]["arguments"]) == {"command": "curl -H [redacted]"}
    assert made["id"] == "a"
    assert messages[1]["content"][0]["text"] == TOKEN


def test_the_user_s_own_words_stay_unless_asked() -> None:
    messages = [
        {"role": "system", "content": TOKEN},
        {"role": "user", "content": TOKEN},
        {"role": "user", "content": TOKEN},
    ]
    assert [edit.start for edit in Session(Redact()).begin(messages).edits] == [2]
    session = Session(Redact(everywhere=True))
    assert [edit.start for edit in session.begin(messages).edits] == [0, 1, 2]
    assert session.skipped == ()


def test_patterns_of_one_s_own(run: Run, places: Places) -> None:
    trajectory = run(("id", "employee E-123"), ("env", TOKEN))
    assert places(Redact(patterns=(r"E-\d+",)), trajectory) == [2, 4]
    assert places(parse(r"redact:patterns=(E-\d+)|F-\d,known=false"), trajectory) == [2]
    assert places(Redact(known=False), trajectory) == []


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "patterns: '\\(' is no regular expression: missing"),
        ("x*", "fits the empty text"),
        ("red", "or the placeholder"),
    ],
)
def test_patterns_that_would_never_end(pattern: str, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        Redact(patterns=(pattern,))


def test_it_is_never_less_than_forget() -> None:
    with pytest.raises(PolicyError, match="mode must be forget"):
        Redact(mode=Mode.REPAIR)


def test_a_secret_never_goes_out_nor_to_disk(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    messages = list(run(("ls", "x"), ("env", f"{'line ' * 99}\n{TOKEN}"), ("ls", "y")).messages)
    # The cap would edit the same message; the redaction goes first.
    session = Session("cap_at_ingestion:max_chars=200+redact", MockAdapter(), journal=path)
    for place in [i for i, m in enumerate(messages) if m["role"] == "assistant"]:
        turn = session.begin(messages[:place])
        assert TOKEN not in json.dumps(turn.request["messages"])
        turn.finish({"choices": [{"message": messages[place]}]})
    assert TOKEN not in path.read_text()
    assert TOKEN not in json.dumps(session.history)
    assert [edit.policy for edit in session.edits] == ["redact"]
    assert session.receipts[2].edits[0].mode_used is Mode.FORGET


@pytest.mark.parametrize("content", ["", f"I use {TOKEN}."])
@pytest.mark.parametrize("resent", [False, True])
def test_fields_that_are_no_part_of_a_message_s_identity(
    content: str, resent: bool, tmp_path: Path
) -> None:
    path = tmp_path / "j.jsonl"
    signed = {"type": "thinking", "thinking": "Yes.", "signature": "s"}
    thoughts: dict[str, Any] = {
        "reasoning_content": f"Use {TOKEN}.",
        "reasoning": {"summary": [f"{TOKEN}"]},
        "thinking_blocks": [signed, {**signed, "thinking": TOKEN}],
        "provider_specific_fields": {"echo": [{"raw": TOKEN}]},
    }
    call = {**tool_call("bash", id="a", command="ls"), "content": content, **thoughts}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "task"},
        call,
        {"role": "tool", "tool_call_id": "a", "content": "ok", "artifact": {"env": TOKEN}},
    ]
    session = Session("redact", MockAdapter(), journal=path)
    for _ in range(3):
        turn = session.begin(messages)
        assert TOKEN not in json.dumps(turn.request["messages"])
        turn.finish("Done.")
        sent = turn.request["messages"] if resent else messages
        messages = [
            *sent,
            {"role": "assistant", "content": "Done."},
            {"role": "user", "content": "on"},
        ]
    assert [(edit.start, edit.redact) for edit in session.edits] == [(1, True), (2, True)]
    assert turn.request["messages"][1]["reasoning_content"] == "Use [redacted]."
    assert turn.request["messages"][1]["thinking_blocks"] == [signed]  # Whole, or not at all.
    assert TOKEN not in path.read_text()
    assert TOKEN not in json.dumps(session.history)
    assert session.skipped == ()


def test_two_of_them_and_a_state_update_send_no_secret(run: Run) -> None:
    messages = run(("env", "key = E-12 F-34"), ("env", "key = E-56 F-78")).messages
    session = Session(r"erratum:fields=key+redact:patterns=(E-\d+)+redact:patterns=(F-\d+)")
    request = session.begin(messages).request["messages"]
    told = json.dumps(request)
    assert not any(secret in told for secret in ("E-12", "F-34", "E-56", "F-78"))
    assert request[-1]["content"].endswith("key: [redacted] [redacted]")
    assert session.skipped == ()


def test_it_is_found_in_the_model_s_own_reply(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    session = Session("redact", MockAdapter(), journal=path)
    task = {"role": "user", "content": "Set it up."}
    session.begin([task]).finish(f"I use {TOKEN}.")
    turn = session.begin([*session.history, task])
    assert turn.request["messages"][1]["content"] == "I use [redacted]."
    turn.finish("Done.")
    assert TOKEN not in path.read_text()


def test_a_session_s_own_pin_is_stronger(run: Run) -> None:
    messages = run(("env", TOKEN)).messages
    session = Session("redact", pinned=lambda message: message["role"] == "tool")
    turn = session.begin(messages)
    assert [note.kind for note in turn.skipped] == ["PinnedMessage"]
    assert "pinned" in turn.skipped[0].detail
