"""A provider's cache that holds nothing, by what its usage says: edits then cost nothing more."""

import pytest
from agent_loop import SYSTEM, TASK, Stub, call

from leyline_agent import Mode, Session
from leyline_agent.adapter import Capabilities
from leyline_agent.testing import DeterministicModel, MockAdapter
from leyline_agent.timing.timing import Timing

OUTPUT = "line of output\n" * 400


class Provider(MockAdapter):
    """One with a prefix cache; `tells` what becomes of the usage's word on it."""

    def __init__(self, tells):
        super().__init__(
            DeterministicModel(lambda m: call(len(m)), repeat=True),
            capabilities=Capabilities(modes=frozenset({Mode.FORGET})),
        )
        self.tells = tells

    def complete(self, request):
        made = super().complete(request)
        details = made["usage"]["prompt_tokens_details"]
        if self.tells == "nothing":
            made["usage"]["prompt_tokens_details"] = None
        elif self.tells == "misses":
            details["cached_tokens"] = 0
        return made


def held_and_made(tells):
    """Over eight turns, the edits held and made in each, and the last turn's reasons."""
    timing = Timing(pays_within=1, clock=lambda: 1000.0)
    session = Session(Stub(n=4), Provider(tells), timing=timing)
    messages, counts = [SYSTEM, TASK], []
    for _ in range(8):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        counts.append((len(turn.held), len(turn.edits)))
        reply = session.history[-1]
        done = {"role": "tool", "tool_call_id": reply["tool_calls"][0]["id"], "content": OUTPUT}
        messages = [*messages, reply, done]
    return counts, [moment.reason for moment in turn.moments]


@pytest.mark.parametrize("tells", ["hits", "nothing"])
def test_a_cache_that_hits_or_is_silent_is_warm(tells):
    counts, reasons = held_and_made(tells)
    assert counts == [(0, 0)] * 5 + [(1, 0), (2, 0), (3, 0)]
    assert "not within 1" in reasons[0]


def test_a_provider_that_finds_nothing_is_edited_at_once():
    counts, _ = held_and_made("misses")
    made = sum(edits for _, edits in counts)
    assert made == 3
    # The call behind an edit was to miss; whether one without an edit does, the next will tell.
    assert all(held <= 1 for held, _ in counts)
