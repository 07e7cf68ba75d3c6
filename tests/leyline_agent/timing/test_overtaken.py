"""Edits ahead that take long: an event loop does not wait for them, and they come too late."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from agent_loop import SYSTEM, TASK, Stub, call, contents, result

from leyline_agent import Edit, Session
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.timing import pace


class Slow(MockAdapter):
    """Edits ahead when it is let."""

    def __init__(self):
        super().__init__(DeterministicModel(lambda m: call(len(m)), repeat=True))
        self.gate = threading.Event()
        self.begun = threading.Event()

    def edit_ahead(self, request, commit):
        self.begun.set()
        assert self.gate.wait(10)
        return super().edit_ahead(request, commit)


def three_turns(session):
    """Turns up to the one behind which an edit ahead begins; the harness's messages."""
    messages = [SYSTEM, TASK]
    for _ in range(3):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        number = len(messages)
        messages = [*messages, call(number), result(number)]
    return messages


async def test_an_event_loop_does_not_wait_for_long(monkeypatch):
    monkeypatch.setattr(pace, "LOOP_PATIENCE", 0.05)
    session = Session(Stub(), Slow(), timing="auto")
    messages = three_turns(session)
    started = time.perf_counter()
    turn = session.begin(messages)
    assert time.perf_counter() - started < 2
    assert turn.commit.base_version == session.version
    # They have waited for a tool, so the call makes them, and those that have come due besides.
    assert contents(turn.request["messages"]).count("stub") == 2
    turn.finish(session.adapter.complete(turn.request))
    made = session.version
    session.adapter.gate.set()
    for thread in list(session._pace._running):
        thread.join()
    assert session.version in (made, made + 1)
    assert contents(session.view).count("stub") >= 2
    stats = session.stats()
    assert (stats.turns, stats.failed) == (4, 1)
    following = session.begin([*messages, call(8), result(8)])
    assert following.trajectory.messages[-1]["content"] == result(8)["content"]
    assert following.commit.base_version == session.version


def test_without_a_loop_the_next_call_waits():
    session = Session(Stub(), Slow(), timing="auto")
    messages = three_turns(session)
    threading.Timer(0.1, session.adapter.gate.set).start()
    turn = session.begin(messages)
    assert turn.commit.base_version == session.version
    assert (session.stats().ahead, session.stats().failed) == (1, 0)
    assert turn.edits == ()


def test_a_call_that_comes_in_between_wins():
    adapter = Slow()
    session = Session(Stub(), adapter)
    messages = [SYSTEM, TASK, call(2), result(2), call(4), result(4), call(6)]
    turn = session.begin(messages[:4])
    turn.finish(call(4))
    session.edit(Edit(3, 4, (result(2, "gone"),)))
    with ThreadPoolExecutor() as pool:
        ahead = pool.submit(session.edit_ahead)
        assert adapter.begun.wait(10)
        turn = session.begin(messages[:6])
        turn.finish(call(6))
        adapter.gate.set()
        assert ahead.result(10) is None
    assert (session.history, session.stats().failed) == (messages, 1)
    # The edit that the call could not have is still declared.
    assert contents(session.begin([*messages, result(6)]).request["messages"])[3] == "gone"
