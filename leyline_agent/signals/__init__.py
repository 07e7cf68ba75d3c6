"""What a trajectory shows: failed calls and stale outputs. Pure functions, no model.

from leyline_agent.signals import failures, stale

failures(trajectory)   # each with what says so
stale(trajectory)      # each with what superseded it
"""

from leyline_agent.signals.effects import BUILTIN, ToolEffects
from leyline_agent.signals.failed import Failure, FailureKind, failure, failures
from leyline_agent.signals.history import originals, unsent, untouched
from leyline_agent.signals.stale import Stale, StaleKind, stale
from leyline_agent.signals.stub import (
    SUMMARY,
    UPDATE,
    capped,
    cut,
    is_capped,
    is_cut,
    is_note,
    is_stub,
    stub,
)

__all__ = [
    "BUILTIN",
    "SUMMARY",
    "UPDATE",
    "Failure",
    "FailureKind",
    "Stale",
    "StaleKind",
    "ToolEffects",
    "capped",
    "cut",
    "failure",
    "failures",
    "is_capped",
    "is_cut",
    "is_note",
    "is_stub",
    "originals",
    "stale",
    "stub",
    "unsent",
    "untouched",
]
