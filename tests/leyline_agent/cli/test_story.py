"""`leyline inspect` on a journal."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from recalling import Harness, recalls, runs

from leyline_agent import Edit, LeylineWarning, Policy, Session, TrajectoryError, cli
from leyline_agent.cli.story import Story, story
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

TASK = {"role": "user", "content": "Fix [bold]it[/bold]\x1b[31m."}
DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "inspect.md"


class Stub(Policy):
    """Stub every result but the last; once it is told to, fail."""

    fails: bool = False

    def edits(self, trajectory):
        if self.fails:
            raise RuntimeError("no more")
        for found in trajectory.tool_results[:-1]:
            if found.content != "stub":
                yield found.replace("stub", reason="old")


def run(session, turns, messages=(TASK,)):
    for _ in range(turns):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        reply = session.history[-1]
        call = reply["tool_calls"][0]["id"]
        answer = {"role": "tool", "tool_call_id": call, "content": "passed " * 90}
        messages = [*messages, reply, answer]
    return messages


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.jsonl"


@pytest.fixture
def session(path):
    """A session to which much happened; its journal is at `path`."""
    model = DeterministicModel(*[tool_call("bash", id=f"c{n}", n=n) for n in range(9)])
    adapter = MockAdapter(model)
    session = Session(Stub(), adapter, id="s-1", journal=path, mode_floor="forget")
    messages = run(session, 3)
    session.begin(messages).fail(TimeoutError("slow"))
    session = Session.resume(path, Stub(fails=True), adapter)
    session.edit(Edit(4, 5, ({**messages[4], "content": "gone"},), redact=True))
    with pytest.warns(LeylineWarning):
        session.edit_ahead()
    run(session, 1, messages)
    session.begin([TASK])
    return session


def printed(capsys, *arguments):
    """The exit status and what was printed, errors included."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", *map(str, arguments)])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out + captured.err


def test_every_turn_is_told_in_the_order_in_which_it_ended(path, session):
    found = story(path)
    told = [(turn.version, turn.base, turn.outcome) for turn in found.turns]
    assert told == [
        (1, 0, "committed"),
        (2, 1, "committed"),
        (3, 2, "committed"),
        (4, 3, "failed"),
        (5, 3, "ahead"),
        (6, 5, "committed"),
        (7, 6, "unanswered"),
    ]
    assert found.turns[3].error == "TimeoutError"
    assert (found.session.id, found.session.policies) == ("s-1", ["stub"])
    assert (found.session.adapter, found.session.resumed) == ("mock", 1)


def test_the_figures_are_the_receipts(path, session):
    found = story(path)
    receipts = {receipt.version: receipt for receipt in session.receipts}
    for turn in found.turns:
        if turn.version in receipts:
            receipt = receipts[turn.version]
            for name in ("prompt", "reused_exact", "reused_spliced", "recomputed", "prefilled"):
                assert getattr(turn, name) == getattr(receipt, name)
    assert found.totals.prompt == session.stats().prompt
    assert found.totals.computed == session.stats().compute
    assert (found.totals.turns, found.totals.failed, found.totals.edits) == (4, 1, 2)


def test_edits_come_with_their_modes_and_reasons(path, session):
    (edit,) = story(path).turns[2].edits
    (receipt,) = session.receipts[2].edits
    assert (edit.start, edit.end, edit.count, edit.policy) == (2, 3, 1, "stub")
    modes = (edit.mode_asked.value, edit.mode_sent.value, edit.mode_used.value)
    assert modes == ("repair", "forget", "forget")
    assert (edit.reason, edit.reason_code.value) == ("old", "user_floor")
    assert edit.tokens_before == receipt.end - receipt.start > edit.tokens_after


def test_the_unedited_prompt_is_estimated_at_the_rate_of_the_edited_one(path, session):
    first, *_, last = [turn for turn in story(path).turns if turn.outcome == "committed"]
    assert first.tokens_unedited == first.prompt
    unedited = MockAdapter(DeterministicModel("ok"))
    turn = Session(adapter=unedited).begin(session.history[:-1])
    whole = turn.finish(unedited.complete(turn.request)).prompt
    assert last.tokens_unedited == pytest.approx(whole, rel=0.2)
    assert last.prompt < whole / 1.5


def test_on_the_terminal(path, session, capsys):
    status, out = printed(capsys, path)
    assert status == 0
    assert out.startswith("s-1 (journal; stub; through mock, mode at least forget)\nversion 1 ")
    assert "stub: message 2 -> 1, repair -> forget (user_floor), " in out
    assert "harness: message 4 redacted, forget" in out
    assert "version 4 from 3: failed: TimeoutError" in out
    assert "version 5 from 3: edited ahead" in out
    assert "version 7 from 6: no answer is on record" in out
    assert "skipped stub: RuntimeError\n" in out
    assert "4 turns, 1 failed, resumed 1 time; 2 edits, 2 skipped." in out
    assert "why" not in out


def test_why_adds_the_reasons(path, session, capsys):
    _, out = printed(capsys, path, "--why")
    assert "    why: old\n" in out
    assert "skipped stub: RuntimeError: no more" in out


def test_held_edits_are_told(path, capsys):
    model = DeterministicModel(*[tool_call("bash", id=f"c{n}", n=n) for n in range(9)])
    policy = "truncate_older_than:n=2,max_chars=40"
    session = Session(policy, MockAdapter(model), timing="auto", journal=path)
    run(session, 6)
    assert session.stats().held
    held = [moment for turn in story(path).turns for moment in turn.moments if moment.held]
    assert sum(len(moment.edits) for moment in held) == session.stats().held
    _, out = printed(capsys, path)
    assert str(held[0]) in out


def test_recalls_are_told(path, capsys):
    agent = Harness(runs(), runs(), recalls(0), runs(), recalls("gone"), "done", journal=path)
    agent.turns(4)
    found, stats = story(path), agent.session.stats()
    hidden = [turn for turn in found.turns if turn.outcome == "hidden"]
    assert len(hidden) == stats.hidden == 2
    assert (found.totals.turns, found.totals.recalls) == (stats.turns, stats.recalls) == (4, 1)
    assert found.totals.prompt == stats.prompt
    _, out = printed(capsys, path)
    assert "the reply a recall that the harness does not see" in out
    assert f"  recalled {hidden[0].recalls[0].id}, cut by keep_last" in out
    assert "  asked to recall gone, which is not there" in out


def test_json_is_the_story(path, session, capsys):
    status, out = printed(capsys, path, "--json")
    assert status == 0
    assert Story.model_validate_json(out) == story(path)


def test_an_option_that_needs_a_policy_is_told(path, session, capsys):
    for option, problem in (("--record", "takes a journal as runs"), ("--timing", "says when")):
        value = "1" if option == "--record" else "auto"
        status, told = printed(capsys, path, option, value)
        assert (status, f"{option} {problem}" in told) == (2, True)


def test_the_file_is_left_as_it_is(path, session, capsys):
    cut = path.read_bytes() + b'{"v":1,"event":"commit"'
    path.write_bytes(cut)
    assert story(path).dropped == 23
    _, out = printed(capsys, path)
    assert "the last 23 bytes are a line that was cut off" in out
    assert path.read_bytes() == cut


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda lines: [*lines[:2], lines[2][:30], *lines[3:]], "line 3: not JSON"),
        (lambda lines: [lines[0], *lines[3:]], "line 3: this 'commit' event does not fit"),
        (lambda lines: [lines[0].replace('"v":1', '"v":9')], "line 1: schema 9"),
        (lambda lines: [lines[0].replace('"session"', '"sassion"')], "line 1: .*session"),
    ],
)
def test_a_corrupt_journal_is_told_with_its_line(path, session, capsys, damage, problem):
    lines = damage(path.read_text().splitlines())
    path.write_text("".join(line + "\n" for line in lines))
    with pytest.raises(TrajectoryError, match=problem):
        story(path)
    status, out = printed(capsys, path)
    assert status == 2
    assert "Traceback" not in out


def test_a_journal_without_a_whole_line_is_told(path, capsys):
    path.write_text('{"v":1,"event":"open"}')
    status, out = printed(capsys, path)
    assert (status, "holds no whole event" in out) == (2, True)


def fields(model: type[BaseModel], prefix=""):
    """Every field, nested lists as `name[].field`."""
    for name, field in model.model_fields.items():
        inner = [m for m in (field.annotation, *getattr(field.annotation, "__args__", ()))]
        nested = next((m for m in inner if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if nested is None:
            yield prefix + name
        elif nested is field.annotation:
            yield from fields(nested, f"{prefix}{name}.")
        else:
            yield from fields(nested, f"{prefix}{name}[].")


def test_the_json_is_documented():
    text = DOCUMENT.read_text().split("### The JSON of a journal", 1)[1].split("\n## ", 1)[0]
    documented = set()
    for row in re.findall(r"^\| (`.*?`) \|", text, re.M):
        prefix = ""
        for name in re.findall(r"`([\w.\[\]]+)`", row):
            prefix = prefix if name.startswith(".") else name.rpartition(".")[0]
            documented.add(prefix + name if name.startswith(".") else name)
    told = set(fields(Story)) - {
        name for name in fields(Story) if name.startswith("turns[].others[]")
    }
    told = {re.sub(r"moments\[\]\..*", "moments", name) for name in told} | {"turns[].others"}
    told = {re.sub(r"skipped\[\]\..*", "skipped", name) for name in told}
    assert documented == told
