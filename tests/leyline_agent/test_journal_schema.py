import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from pydantic import BaseModel, ValidationError

from leyline_agent import Ask, Edit, Mode, Policy, Session, journal_schema
from leyline_agent.journal import SCHEMA
from leyline_agent.question import at_once
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call
from leyline_agent.timing.moment import Moment

ROOT = Path(__file__).resolve().parents[2]
TASK = {"role": "user", "content": "Fix the bug \ud800."}
EVENTS = {
    "open": journal_schema.Opened,
    "resume": journal_schema.Resumed,
    "recall": journal_schema.RecallSet,
    "begin": journal_schema.Begun,
    "answer": journal_schema.AnswerCame,
    "commit": journal_schema.Committed,
    "fail": journal_schema.Failed,
}


class Stub(Policy):
    """Ask something; stub every result but the last; from the fourth on, fail."""

    def edits(self, trajectory):
        yield Ask("key", (TASK,))
        if len(trajectory.tool_results) > 3:
            raise RuntimeError("no more")
        for found in trajectory.tool_results[:-1]:
            if found.content != "stub":
                yield found.replace("stub", mode=Mode.AMORTIZE, reason="old")


def validator():
    made = jsonschema.Draft202012Validator(journal_schema.schema())
    made.check_schema(journal_schema.schema())
    return made


def adapter():
    return MockAdapter(DeterministicModel(*[tool_call("bash", n=n) for n in range(9)]))


def turn(session, messages):
    turn = session.begin(messages)
    turn.finish(session.adapter.complete(turn.request))
    reply = session.history[-1]
    answered = {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": "out"}
    return [*messages, reply, answered]


@pytest.fixture
def path(tmp_path):
    """The journal of a session to which everything happened that is written."""
    path = tmp_path / "one.jsonl"
    answering = at_once(lambda ask: "42")
    session = Session(
        Stub(), adapter(), journal=path, mode_floor="repair", fulfil=answering, recall=True
    )
    messages = [TASK]
    for _ in range(3):
        messages = turn(session, messages)
    session.begin(messages).fail(TimeoutError("slow"))
    session = Session.resume(path, Stub(), session.adapter, fulfil=answering)
    session.edit(Edit(2, 3, ({**messages[2], "content": "gone"},), redact=True))
    session.edit_ahead()
    with pytest.warns(match="RuntimeError"):
        messages = turn(session, turn(session, messages))
    session.begin(messages).fail("abandoned")
    session.begin([TASK]).finish()
    return path


def test_every_line_of_a_journal_is_what_the_schema_says(path):
    lines = path.read_text().splitlines()
    seen = set()
    for line in lines:
        event = json.loads(line)
        validator().validate(event)
        assert type(journal_schema.validated(line)) is EVENTS[event["event"]]
        seen.add(event["event"])
    assert seen == set(EVENTS)
    commits = [json.loads(line) for line in lines if '"commit"' in line]
    assert any(commit["skipped"] for commit in commits)
    assert any(edit["redact"] for commit in commits for edit in commit["edits"])
    assert any(commit["reply"] is None for commit in commits)


@pytest.mark.parametrize(
    "damage",
    [
        {"event": "close"},
        {"v": SCHEMA + 1},
        {"time": None},
        {"kept": -1},
        {"extra": 1},
        {"reply": "text"},
        {"receipt": {"prompt": "many"}},
    ],
    ids=lambda damage: next(iter(damage)),
)
def test_what_is_no_event_is_refused(path, damage):
    line = next(line for line in path.read_text().splitlines() if '"commit"' in line)
    event = {**json.loads(line), **damage}
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(event)
    with pytest.raises(ValidationError):
        journal_schema.validated(json.dumps(event))


def test_the_module_prints_the_schema():
    run = subprocess.run(
        [sys.executable, "-m", "leyline_agent.journal_schema"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(run.stdout) == journal_schema.schema()


def names(text):
    return re.findall(r"`(\w+)`", text)


def documented():
    """The rows of docs/journal.md: each event's fields, by its name."""
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \|([^|]*)\|$", (ROOT / "docs" / "journal.md").read_text(), re.M
    )
    return {event: names(re.sub(r"\([^)]*\)", "", fields)) for event, fields in rows}


def table(title):
    """The fields of the table that a line with `title` announces."""
    text = (ROOT / "docs" / "journal.md").read_text().split(title, 1)[1]
    rows = text.split("| --- | --- |\n", 1)[1].split("\n\n", 1)[0]
    return [name for row in rows.splitlines() for name in names(row.split("|")[1])]


def own(model: type[BaseModel]):
    return [name for name in model.model_fields if name not in ("v", "time", "event")]


def test_every_event_and_field_is_documented():
    told = documented()
    told["commit"] = table("A `commit` says")
    assert told == {event: own(model) for event, model in EVENTS.items()}
    assert table("Each of `edits`") == list(journal_schema.EditMade.model_fields)
    assert table("Each of `skipped`") == list(journal_schema.NotTaken.model_fields)
    assert table("Each of `moments`") == list(Moment.model_fields)
    assert table("An `exchange`") == list(journal_schema.Exchange.model_fields)
