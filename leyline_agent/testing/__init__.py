"""Test your policies without a model: a scripted model and an adapter that simulates an engine.

Adapters of your own are tested by subclassing `AdapterConformance`.

adapter = MockAdapter(DeterministicModel("I look.", "Done."))
session = Session(policies=MyPolicy(), adapter=adapter)
turn = session.begin(messages)
receipt = turn.finish(adapter.complete(turn.request))
"""

import sys

if (_pytest := sys.modules.get("pytest")) is not None:  # so that a failure shows its values
    _pytest.register_assert_rewrite(f"{__name__}.conformance")

from leyline_agent.testing.adapter import MockAdapter
from leyline_agent.testing.conformance import AdapterConformance
from leyline_agent.testing.extract import extract
from leyline_agent.testing.model import Answer, DeterministicModel, tool_call

__all__ = [
    "AdapterConformance",
    "Answer",
    "DeterministicModel",
    "MockAdapter",
    "extract",
    "tool_call",
]
