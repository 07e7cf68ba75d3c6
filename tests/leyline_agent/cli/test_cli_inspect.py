from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline_agent import cli
from leyline_agent.cli.inspection import InspectReport, inspect
from leyline_agent.edit import Edit
from leyline_agent.policy import policy
from leyline_agent.readers import Recording, formats, read
from leyline_agent.timing.timing import Timing
from leyline_agent.trajectory import Trajectory


def step(number: int, command: str, output: str, code: int = 0) -> list[dict[str, Any]]:
    arguments = json.dumps({"command": command})
    call = {"id": f"c{number}", "function": {"name": "bash", "arguments": arguments}}
    return [
        {"role": "assistant", "content": f"Step {number}.", "tool_calls": [call]},
        {
            "role": "tool",
            "tool_call_id": f"c{number}",
            "content": output,
            "extra": {"exit_code": code},
        },
    ]


MESSAGES = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "Fix [bold]it[/bold]."},
    *step(0, "cat a.py", "a\n" * 400),
    *step(1, "make test", "boom\n" * 200, code=2),
    *step(2, "sed -i s/a/b/ a.py", ""),
    *step(3, "cat a.py", "b\n" * 400),
    {"role": "assistant", "content": "Done."},
]


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text(
        json.dumps({"id": "demo", "model": "m", "resolved": True, "messages": MESSAGES})
    )
    return path


@pytest.fixture
def recording(run_file: Path) -> Recording:
    (found,) = read(run_file)
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit status and what was printed, errors included."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", *arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out + captured.err


@policy
def keep_two(trajectory: Trajectory) -> Iterator[Edit]:
    """Stub all but the two newest results."""
    for result in trajectory.tool_results[:-2]:
        if len(result.content) > 100:
            yield result.replace("(old output)", reason="old")


@policy
def overreach(trajectory: Trajectory) -> Iterator[Edit]:
    """Wants what it may not have."""
    yield Edit(0, 1, ({"role": "system", "content": "changed"},))


@policy
def raises(trajectory: Trajectory) -> Iterator[Edit]:
    """A broken policy."""
    raise RuntimeError("what is this")
    yield  # a generator, as policies are


def test_a_run_without_a_policy(recording: Recording) -> None:
    found = inspect(recording)
    assert (found.run.messages, found.run.calls, found.run.turns) == (11, 4, 5)
    assert [m.index for m in found.messages] == list(range(11))
    assert [(m.role, m.tools) for m in found.messages[1:4]] == [
        ("user", []),
        ("assistant", ["bash"]),
        ("tool", ["bash"]),
    ]
    assert found.policy is None
    assert all(turn.tokens == turn.tokens_unedited and not turn.edits for turn in found.turns)


def test_signals(recording: Recording) -> None:
    signals = {(s.index, s.signal): s for s in inspect(recording).signals}
    assert signals[5, "failed"].kind == "exit_code"
    assert signals[3, "stale"].kind == "edited"
    assert signals[3, "stale"].by == 7


def test_edits_come_turn_by_turn_and_stay(recording: Recording) -> None:
    found = inspect(recording, keep_two)
    edits = {turn.turn: [(e.start, e.end) for e in turn.edits] for turn in found.turns}
    # The first result ages out before the fourth call, the second before the last.
    assert edits == {1: [], 2: [], 3: [], 4: [(3, 4)], 5: [(5, 6)]}
    last = found.turns[-1]
    (edit,) = last.edits
    assert (edit.policy, edit.reason, edit.mode.value, edit.count) == (
        "keep_two",
        "old",
        "repair",
        1,
    )
    assert edit.tokens_before > edit.tokens_after == 3
    assert edit.line == "(old output)"
    saved = sum(e.tokens_before - e.tokens_after for turn in found.turns for e in turn.edits)
    assert last.tokens_unedited - last.tokens == pytest.approx(saved, abs=2)


def test_behind_counts_only_what_the_model_had_read(recording: Recording) -> None:
    (edit,) = inspect(recording, keep_two).turns[-1].edits
    history = recording.trajectory()
    # Messages 6, 7 and 8 had been sent or generated; 9 is new in this turn.
    assert edit.behind == history.tokens(history.messages[6:9])


def test_totals_add_up(recording: Recording) -> None:
    found = inspect(recording, keep_two)
    assert found.totals.edits == sum(len(t.edits) for t in found.turns) == 2
    assert found.totals.turns_with_edits == 2
    assert found.totals.prompt_tokens == sum(t.tokens for t in found.turns)
    assert found.totals.prompt_tokens_unedited == sum(t.tokens_unedited for t in found.turns)
    assert found.totals.prompt_tokens < found.totals.prompt_tokens_unedited


@pytest.mark.parametrize(
    ("chosen", "kind", "where"),
    [(overreach, "PinnedMessage", "messages [0, 1)"), (raises, "RuntimeError", "")],
)
def test_what_a_policy_may_not_do_is_told(
    recording: Recording, chosen: Any, kind: str, where: str
) -> None:
    found = inspect(recording, chosen)
    assert found.totals.edits == 0
    assert found.totals.skipped == found.run.turns
    assert {(s.kind, s.where) for turn in found.turns for s in turn.skipped} == {(kind, where)}


def test_results_without_a_call_and_calls_without_a_result_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orphan = {"role": "tool", "tool_call_id": "nowhere", "content": "who asked?"}
    left_out = step(7, "ls", "")[0]
    path = tmp_path / "run.json"
    path.write_text(json.dumps([*MESSAGES[:2], orphan, left_out, *MESSAGES[2:]]))
    (recording,) = read(path)
    odd = {s.index: (s.kind, s.detail) for s in inspect(recording).signals if s.signal == "odd"}
    assert odd[2][0] == "OrphanResult"
    assert "'nowhere'" in odd[2][1]
    assert odd[3] == ("UnansweredCall", "its call 'c7' of 'bash' has no result behind it")
    _, out = run(capsys, str(path), "--why")
    assert "odd: OrphanResult  who asked?" in out
    assert "message 2 odd: OrphanResult: its id 'nowhere' is no open call's" in out


def test_no_column_but_the_last_is_cut_at_80_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = step(0, "cat a.py", "Traceback (most recent call last):\n" * 4000, code=3)
    long[0]["tool_calls"][0]["function"]["name"] = "a_tool_with_a_very_long_name_indeed"
    path = tmp_path / "run.json"
    path.write_text(json.dumps([*MESSAGES[:2], *long * 60]))
    _, out = run(capsys, str(path))
    table = out.splitlines()[1:]
    assert max(map(len, table)) <= 80
    assert table[0].split()[:4] == ["#", "role", "tool", "tokens"]
    assert [int(line.split()[0]) for line in table[1:]] == list(range(122))
    assert re.match(r"  3  tool       a_tool_with_a_ver…  35,000  failed: ", table[4])


def test_timing_holds_edits_and_why_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    demo = Path(__file__).parents[3] / "evals" / "leyline_evals" / "demo" / "recording.json"
    arguments = (str(demo), "--policy", "keep_last:n=5", "--timing", "auto:prices=anthropic")
    _, out = run(capsys, *arguments, "--why")
    _, told = out.split("turn by turn:")
    plain = " ".join(told.split())
    assert "turn 6 (before message 13): 1,434 tokens" in plain
    assert "held: 1 edit (message 3): costs 1,402 uncached tokens, saves 42 a call: " in plain
    assert re.search(r"now: 4 edits \(messages 5, 6, 8, 10\): .* pays after [\d.]+ calls", plain)
    assert "times one was held." in plain
    assert max(map(len, told.splitlines())) <= 80
    assert "held: 1 edit" not in run(capsys, *arguments)[1]
    _, out = run(capsys, *arguments, "--json")
    found = InspectReport.model_validate_json(out)
    moments = [moment for turn in found.turns for moment in turn.moments]
    assert (found.timing, found.totals.held) == (
        "auto:prices=anthropic",
        sum(len(moment.places) for moment in moments if moment.held),
    )
    assert found.totals.held > 0


def test_a_moments_places_are_of_the_history(recording: Recording) -> None:
    @policy
    def drop_and_stub(trajectory: Trajectory) -> Iterator[Edit]:
        yield from keep_two.edits(trajectory)
        for call in trajectory.tool_calls[:1]:
            if len(trajectory.messages) == len(MESSAGES) - 3:
                yield trajectory.drop_call(call)

    found = inspect(recording, drop_and_stub, timing=Timing(pays_within=10**6))
    last = found.turns[-1]
    assert [place for moment in last.moments for place in moment.places] == [
        (edit.start, edit.end) for edit in last.edits
    ]


def test_a_greeting_before_any_request_is_no_turn() -> None:
    greeting = {"role": "assistant", "content": "Hi!"}
    messages = (greeting, {"role": "user", "content": "Hello"}, greeting)
    found = inspect(Recording(id="x", format="openai-chat", messages=messages))
    assert [turn.message for turn in found.turns] == [2]
    nothing = inspect(Recording(id="x", format="openai-chat", messages=messages[:1]), keep_two)
    assert (nothing.turns, nothing.totals.prompt_tokens) == ([], 0)


def test_json(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, str(run_file), "--policy", "truncate_older_than:n=2", "--json")
    found = InspectReport.model_validate_json(out)
    assert status == 0
    assert (found.format, found.version, found.policy) == (
        "leyline-inspect",
        1,
        "truncate_older_than",
    )
    assert [e.start for turn in found.turns for e in turn.edits] == [3, 5]


def test_the_table(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = run(capsys, str(run_file))
    assert status == 0
    assert "demo (openai-chat, m, solved): 11 messages, 5 turns, 4 tool calls" in out
    assert "Fix [bold]it[/bold]." in out
    assert "failed: exit_code" in out
    assert "turn by turn" not in out


def test_the_policy_and_why(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = (str(run_file), "--policy", "truncate_older_than:n=2,max_chars=40")
    _, plain = run(capsys, *arguments)
    _, out = run(capsys, *arguments, "--why")
    assert "turn 5 (before message 10)" in plain
    assert "message 5: 250 -> " in plain
    assert "2 edits in 2 of 5 turns, 0 skipped." in plain
    assert "why:" not in plain
    assert "    why: truncate_older_than; now begins: " in out
    assert "  message 5 failed: exit_code: exit code 2" in out


def test_a_policy_with_nothing_to_do(run_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out = run(capsys, str(run_file), "--policy", "keep_all")
    assert "nothing to cut" in out


def test_records_are_counted_from_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.jsonl"
    lines = [json.dumps({"id": f"run {n}", "messages": MESSAGES}) for n in range(2)]
    path.write_text("\n".join(lines))
    assert run(capsys, str(path), "--record", "1")[1].startswith("run 1 (")
    status, out = run(capsys, str(path), "--record", "2")
    assert (status, "no record 2; it holds 2, counted from 0" in out) == (2, True)


@pytest.mark.parametrize("hostile", ["\x1b]0;owned\x07\x1b[2J\u202etext"])
def test_hostile_text_does_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hostile: str
) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps([{"role": "user", "content": hostile}]))
    unread = tmp_path / "unread.json"
    unread.write_text(json.dumps({hostile: 1}))
    both = tmp_path / "both.jsonl"
    both.write_text(path.read_text() + "\n" + unread.read_text())
    for file in (path, unread, both):
        _, out = run(capsys, str(file))
        assert "owned" in out
        assert not {"\x1b", "\x07", "\u202e"} & set(out)


GOOD = json.dumps({"messages": MESSAGES})


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_broken_lines_are_told_and_the_good_run_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(
        "\n".join([GOOD, '{"messages": [', GOOD, '{"foo": 1}', *["[" for _ in range(6)]])
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", str(path), "--record", "1", *more])
    out, err = capfd.readouterr()
    assert stop.value.code == 0
    first, second, *_, last = err.splitlines()
    assert first.startswith(f"leyline: not read: {path}, line 2: malformed JSON")
    assert second.startswith(f"leyline: not read: {path}, line 4: no reader recognises")
    assert last == "leyline: 3 more records not read"
    if more:
        seen = InspectReport.model_validate_json(out).file
        assert (seen.runs, len(seen.unread)) == (2, 8)
    else:
        assert out.startswith("run-2 (openai-chat)")
        assert "one of 2 runs in the file" in out


def test_a_file_that_ends_early_shows_what_came_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs.jsonl.gz"
    noise = random.Random(1).randbytes(200_000).hex()
    path.write_bytes(gzip.compress(f"{GOOD}\n{GOOD}\n{json.dumps([noise])}\n".encode())[:100_000])
    status, out = run(capsys, str(path))
    assert status == 0
    assert "11 messages" in out
    assert f"not read: {path}: truncated gzip" in out
    status, out = run(capsys, str(path), "--record", "2")
    assert status == 2
    assert "no record 2; it holds 2, counted from 0; 1 more cannot be read: " in out


def test_policies_may_be_given_one_by_one(
    run_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("-p", "keep_last:n=1", "-p", "dedupe", "--json")
    together = run(capsys, str(run_file), "-p", "keep_last:n=1+dedupe", "--json")
    assert run(capsys, str(run_file), *options) == together


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.json",), "nothing.json: cannot be opened"),
        ((str(Path(__file__).parent),), "cli: a folder; name the files in it"),
        (("/dev/null",), "/dev/null: empty; nothing to read"),
        (("RUN", "--policy", ""), "empty policy in ''; write name:key=value,key=value"),
        (("RUN", "--policy", "truncate_older_then"), "did you mean 'truncate_older_than'"),
        (("RUN", "--policy", "truncate_older_than:n=x"), "truncate_older_than"),
        (("RUN", "--timing", "later"), "timing 'later': it is 'now', 'auto'"),
        (("RUN", "--timing", "auto"), "--timing says when a policy cuts; name one with --policy"),
    ],
)
def test_errors_are_one_line(
    run_file: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    status, out = run(capsys, *(str(run_file) if a == "RUN" else a for a in arguments))
    assert status == 2
    assert out.startswith("leyline: ")
    assert out.count("\n") == 1
    assert message in out


def test_the_docs_name_every_field_and_format() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "inspect.md").read_text()
    schema = InspectReport.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    fields = {name for part in parts for name in part.get("properties", ())}
    missing = {f for f in fields if not re.search(rf"[`.]{f}(`|\[\])", docs)}
    assert missing == {"file", "run", "totals"}  # what is inside them is named
    assert all(f"`{name}`" in docs for name in formats())


def test_recorded_runs_of_every_format(trajectories_dir: Path) -> None:
    for path in sorted((trajectories_dir / "native").iterdir()):
        for recording in read(path, limit=2):
            found = inspect(recording, keep_two)
            assert found.run.turns == sum(m["role"] == "assistant" for m in recording.messages)
            assert found.totals.skipped == 0, path.name
            results = [m for m in found.messages if m.role == "tool" and m.tokens > 25]
            assert (found.totals.edits > 0) == (len(results) > 2), path.name
