"""Observers are told of every turn and cannot cost one."""

import pytest

from leyline_agent import Edit, LeylineWarning, Session
from leyline_agent.journal import load
from leyline_agent.testing import DeterministicModel, MockAdapter

ASK = [{"role": "user", "content": "hello"}]


class Noting:
    def __init__(self):
        self.told = []

    def begun(self, prepared):
        self.told.append(("begun", prepared.commit.version))

    def committed(self, prepared, made, gone, receipt):
        self.told.append(("committed", made.version, receipt.version))

    def failed(self, prepared, error):
        self.told.append(("failed", prepared.commit.version, str(error)))


class Raising:
    def begun(self, prepared, *more):
        raise RuntimeError("no disk")

    committed = failed = begun


def test_turns_are_told_in_order():
    noting = Noting()
    session = Session(observers=[noting])
    session.begin(ASK).fail(ValueError("gone"))
    session.begin(ASK).finish("hi")
    assert noting.told == [
        ("begun", 1),
        ("failed", 1, "gone"),
        ("begun", 1),
        ("committed", 1, 1),
    ]


def test_one_that_raises_costs_no_turn_and_is_warned_of_once(tmp_path):
    noting = Noting()
    session = Session(observers=[Raising(), noting], journal=tmp_path / "j.jsonl")
    with pytest.warns(LeylineWarning, match="observer Raising raised .*no disk"):
        turn = session.begin(ASK)
    turn.finish("hi")  # A second warning would be an error here.
    assert session.version == 1
    assert len(noting.told) == 2
    events = [event["event"] for event in load(tmp_path / "j.jsonl").events]
    assert events == ["open", "begin", "commit"]


def test_where_warnings_are_errors_the_turn_goes_on_too():
    session = Session(observers=[Raising()])
    session.begin(ASK).finish("hi")
    assert session.version == 1


def test_a_resumed_session_has_observers_too(tmp_path):
    path, noting = tmp_path / "j.jsonl", Noting()
    Session(journal=path).begin(ASK).finish("hi")
    Session.resume(path, observers=[noting]).begin([*ASK, *ASK]).finish("ho")
    assert [kind for kind, *_ in noting.told] == ["begun", "committed"]


def test_observers_learn_what_a_call_is_made_with():
    seen = []

    class Looking(Noting):
        def begun(self, prepared):
            seen.append((prepared.adapter, prepared.asked))

    session = Session("keep_last:n=1", MockAdapter(DeterministicModel("hi")), observers=[Looking()])
    session.begin(ASK, model="m", stream=True).finish("hi")
    session.edit(Edit(1, 2, ({"role": "assistant", "content": "hey"},)))
    assert session.edit_ahead() is not None
    assert seen == [("mock", {"model": "m", "stream": True}), ("mock", None)]


@pytest.mark.parametrize("adapter", [MockAdapter, lambda model: model, lambda model: None])
def test_the_receipt_counts_the_reply(adapter):
    model = DeterministicModel("four or so words")
    used = adapter(model)
    session = Session(adapter=used)
    turn = session.begin(ASK)
    answer = (used or model).complete(turn.request)
    assert turn.finish(answer).completion == answer["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("said", ["many", None, -3, {"of": 3}])
def test_a_usage_that_counts_nothing_costs_no_turn(said):
    usage = {"prompt_tokens": 9, "completion_tokens": said, "prompt_tokens_details": said}
    answer = {"choices": [{"message": {"role": "assistant", "content": "hi"}}], "usage": usage}
    receipt = Session().begin(ASK).finish(answer)
    assert (receipt.prompt, receipt.completion, receipt.reused) == (9, 0, 0)
