"""Native messages: back by identity, edits as copies, turns that end whatever happens."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from notes import Note, NoteCodec

from leyline_adapters.harnesses.native import Completion, Harness, NativeTurn, completion
from leyline_adapters.openai_compatible import OpenAICompatibleAdapter
from leyline_agent.adapter import Commit, Request
from leyline_agent.errors import AdapterError, LeylineError
from leyline_agent.message import Message
from leyline_agent.testing import DeterministicModel, tool_call
from leyline_agent.warning import LeylineWarning

POLICY = "truncate_older_than:n=1,max_chars=40"
TOOLS = [{"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}]
LONG = "a line of output\n" * 40


def conversation(num_calls: int, task: str = "Does it work?") -> list[Note]:
    notes = [Note("system", "You help.", mark="s"), Note("user", task, mark="u")]
    for number in range(num_calls):
        notes.append(Note("assistant", "", f"c{number}", mark=f"a{number}"))
        notes.append(Note("tool", f"{number} {LONG}", f"c{number}", mark=f"t{number}"))
    return notes


def harness(policies: Any = POLICY, adapter: Any = None, **more: Any) -> Harness[Note]:
    return Harness("notes", NoteCodec(), policies, adapter, None, {}, **more)


def told(note: Note) -> Completion:
    usage = {"prompt_tokens": 10, "completion_tokens": 1}
    return completion(NoteCodec().read(note), usage)


def made(answer: Completion) -> Note:
    return NoteCodec().made(answer["choices"][0]["message"])


class Telling(OpenAICompatibleAdapter):
    """Tells the engine the version, as an adapter for one that splices does."""

    def prepare(self, request: Request, commit: Commit) -> Request:
        return {**request, "extra_body": {"v": commit.version}}


class Model:
    """The framework's model: gives its replies in turn, and keeps what it was sent."""

    def __init__(self, *replies: Any) -> None:
        self.sent: list[list[Note]] = []
        self._replies = list(replies)

    def __call__(self, turn: NativeTurn[Note]) -> Note:
        self.sent.append(turn.messages)
        reply = self._replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        assert isinstance(reply, Note)
        return reply

    async def acall(self, turn: NativeTurn[Note]) -> Note:
        await asyncio.sleep(0)
        return self(turn)


def test_a_conversation_is_edited_on_the_way_and_its_record_is_not() -> None:
    place, model = harness(), Model(Note("assistant", "It does."))
    notes = conversation(3)
    reply = place.begin(notes).run(model, told, made)
    assert reply.text == "It does."
    (sent,) = model.sent
    assert [note.mark for note in sent] == [note.mark for note in notes]
    assert len(sent[3].text) < 100 < len(sent[-1].text)
    assert notes == conversation(3)
    (session,) = place.leyline.sessions
    assert session.history[-1]["content"] == "It does."
    assert session.receipts[0].prompt == 10


def test_the_view_stays_as_it_is_when_the_history_comes_again() -> None:
    place = harness()
    model = Model(Note("assistant", "", "c3"), Note("assistant", "Done."))
    notes = conversation(3)
    reply = place.begin(notes).run(model, told, made)
    notes += [reply, Note("tool", LONG, "c3")]
    place.begin(notes).run(model, told, made)
    first, second = model.sent
    assert [note.text for note in second[: len(first) - 1]] == [n.text for n in first[:-1]]
    assert [s.version for s in place.leyline.sessions] == [2]


async def test_awaited_calls_are_turns_too() -> None:
    place, model = harness(), Model(Note("assistant", "One."), Note("assistant", "Two."))
    turns = [place.begin(conversation(2, task)) for task in ("First?", "Second?")]
    await asyncio.gather(*(turn.arun(model.acall, told, made) for turn in turns))
    assert sorted(s.history[-1]["content"] for s in place.leyline.sessions) == ["One.", "Two."]


def test_equal_conversations_are_told_apart_by_the_framework_s_key() -> None:
    place, model = harness(), Model(*[Note("assistant", "Yes.")] * 3)
    for key in ("thread-1", "thread-2", "thread-1"):
        place.begin(conversation(2), key=key).run(model, told, made)
    assert [session.version for session in place.leyline.sessions] == [2, 1]


@pytest.mark.parametrize("keyed", [True, False])
def test_two_hundred_conversations_at_once_each_keep_their_session(keyed: bool) -> None:
    """As in an evaluation with as many samples at once."""
    place = harness()
    ids = []
    for notes in ([], [Note("assistant", "Well."), Note("user", "And?")]):
        for number in range(200):
            task = f"Task {0 if keyed else number}"
            turn = place.begin([*conversation(0, task), *notes], key=str(number) if keyed else None)
            turn.answered(completion({"role": "assistant", "content": "Well."}, None))
            ids.append(turn.leyline.session.id if turn.leyline else "")
    assert ids[:200] == ids[200:]


def test_an_error_of_the_model_reaches_the_caller_and_nothing_is_committed() -> None:
    place = harness()
    model = Model(TimeoutError("no answer"), Note("assistant", "Now."))
    with pytest.raises(TimeoutError, match="no answer"):
        place.begin(conversation(2)).run(model, told, made)
    (session,) = place.leyline.sessions
    assert session.version == 0
    assert session.stats().failed == 1
    place.begin(conversation(2)).run(model, told, made)
    assert [s.version for s in place.leyline.sessions] == [1]


async def test_a_cancelled_call_gives_its_turn_up() -> None:
    place = harness()

    async def never(turn: NativeTurn[Note]) -> Note:
        await asyncio.sleep(60)
        raise AssertionError

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(place.begin(conversation(2)).arun(never, told, made), 0.01)
    assert place.leyline.sessions[0].is_idle


def test_a_message_that_cannot_be_read_goes_out_as_it_is() -> None:
    place, model = harness(), Model(Note("assistant", "Yes."))
    notes = [*conversation(2), Note("unreadable", "?")]
    with pytest.warns(LeylineWarning, match="ValueError: no such role"):
        turn = place.begin(notes)
    assert turn.run(model, told, made).text == "Yes."
    assert model.sent == [notes]
    assert place.leyline.bypassed[0] == "ValueError: no such role"


def test_an_edit_that_cannot_be_written_back_costs_no_call() -> None:
    class Fussy(NoteCodec):
        def edited(self, native: Note, message: Message) -> Note:
            raise TypeError("frozen")

    place = Harness("notes", Fussy(), POLICY, None, None, {})
    with pytest.warns(LeylineWarning, match="TypeError: frozen"):
        turn = place.begin(conversation(2))
    assert turn.messages == conversation(2)
    assert place.leyline.sessions[0].is_idle


@pytest.mark.filterwarnings("error")
def test_a_warning_that_is_an_error_leaves_no_turn_open() -> None:
    place = harness(adapter=Telling(), makes_calls=False)
    with pytest.raises(LeylineWarning, match="is not told of edits"):
        place.begin(conversation(2))
    assert place.leyline.sessions[0].is_idle


def test_a_reply_that_cannot_be_read_reaches_the_caller() -> None:
    place, model = harness(), Model(Note("unreadable", "!"))
    assert place.begin(conversation(2)).run(model, told, made).text == "!"
    assert place.leyline.sessions[0].version == 1


def test_a_hook_that_only_edits_may_never_say_what_came_back() -> None:
    place = harness(makes_calls=False)
    notes = conversation(2)
    turn = place.begin(notes)
    turn.answered(None)
    turn.failed("of no effect")
    later = place.begin([*notes, Note("assistant", "", "c2"), Note("tool", LONG, "c2")])
    later.answered(None)
    assert len(turn.messages[3].text) < 100
    assert later.messages[3] == turn.messages[3]
    assert [session.version for session in place.leyline.sessions] == [2]


def test_an_adapter_that_makes_calls_makes_them_here_too() -> None:
    engine, place = DeterministicModel("From the engine."), None
    place = harness(adapter=engine)
    turn = place.begin(conversation(2), temperature=0.5)
    reply = turn.run(Model(), told, made)
    assert reply == Note("assistant", "From the engine.", mark="made")
    assert engine.requests[0]["temperature"] == 0.5
    assert len(engine.requests[0]["messages"][3]["content"]) < 100


async def test_an_adapter_that_makes_calls_is_awaited() -> None:
    turn = harness(adapter=DeterministicModel("Yes.")).begin(conversation(2))
    assert (await turn.arun(Model().acall, told, made)).text == "Yes."


def recall_first(messages: list[Message]) -> Message:
    stub = next(m["content"] for m in messages if "leyline_recall(" in m["content"])
    asked = {"id": stub.split('leyline_recall("')[1].split('"')[0]}
    function = {"name": "leyline_recall", "arguments": json.dumps(asked)}
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


def test_a_recall_is_answered_between_two_calls() -> None:
    engine = DeterministicModel(recall_first, "Done.")
    place = Harness("notes", NoteCodec(), POLICY, engine, None, {"recall": True})
    reply = place.begin(conversation(2), TOOLS).run(Model(), told, made)
    assert reply == Note("assistant", "Done.", mark="made")
    first, second = engine.requests
    assert [tool["function"]["name"] for tool in first["tools"]] == ["run", "leyline_recall"]
    assert second["messages"][-1]["content"].startswith("0 a line of output")
    assert place.leyline.sessions[0].history[-1]["content"] == "Done."


async def test_a_recall_of_the_framework_s_own_model_is_hidden_from_it() -> None:
    """It is asked again, with the exchange; the reply it gets has no call of ours left."""
    both = [tool_call(name, id="c9")["tool_calls"][0] for name in ("leyline_recall", "run")]
    engine = DeterministicModel(recall_first, {"role": "assistant", "tool_calls": both})
    place = Harness("notes", NoteCodec(), POLICY, None, None, {"recall": True})
    sent: list[list[Note]] = []

    async def send(turn: NativeTurn[Note]) -> Completion:
        sent.append(turn.messages)
        assert [tool["function"]["name"] for tool in turn.tools] == ["leyline_recall"]
        answer: Completion = engine.complete({"messages": list(map(NoteCodec().read, sent[0]))})
        return answer

    turn: Any = place.begin(conversation(2), TOOLS)
    reply = await turn.arun(send, lambda one: one, lambda one: one)
    assert [note.mark for note in sent[1][-2:]] == ["made", "made"]
    (left,) = reply["choices"][0]["message"]["tool_calls"]
    assert left["function"]["name"] == "run"


def test_an_adapter_that_makes_calls_does_not_fit_a_hook_that_only_edits() -> None:
    place = harness(adapter=DeterministicModel("Yes."), makes_calls=False)
    with pytest.raises(AdapterError, match="'deterministic' makes the model's calls itself"):
        place.begin(conversation(1))


def test_an_engine_that_a_hook_cannot_tell_of_edits_is_told_of_once() -> None:
    place = harness(adapter=Telling(), makes_calls=False)
    with pytest.warns(LeylineWarning, match="no extra_body: the engine is not told of edits"):
        place.begin(conversation(2)).answered(None)
    assert place.begin(conversation(3)).extra
    assert harness(adapter=Telling()).begin(conversation(2)).extra == {"extra_body": {"v": 1}}


def test_recall_does_not_fit_a_hook_that_only_edits() -> None:
    with pytest.raises(LeylineError, match="could not be answered; leave recall out"):
        Harness("notes", NoteCodec(), None, None, None, {"recall": True}, makes_calls=False)


def test_slips_are_told_where_the_harness_is_made(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no adapter named 'olama'"):
        harness(adapter="olama")
    with pytest.raises(LeylineError, match="no policy"):
        harness(policies="truncate_older")
    file = tmp_path / "journal"
    file.touch()
    with pytest.raises(LeylineError, match="name a folder"):
        Harness("notes", NoteCodec(), None, None, file, {})
