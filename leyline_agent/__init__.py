"""Leyline: policies outside the engine edit an agent's cached context.

    @leyline.wrap(policies="truncate_older_than:n=2,max_chars=200")
    def run_agent(task):
        ...  # calls litellm or an OpenAI client as before

All public names are here; what is imported from a module below may change without notice.
"""

import logging

from leyline_agent._version import __version__
from leyline_agent.adapter import Adapter, CallingAdapter, Capabilities
from leyline_agent.directive import Directive, Mode
from leyline_agent.edit import Edit
from leyline_agent.errors import (
    AdapterError,
    BrokenToolPair,
    CallRefused,
    ContextOverflow,
    EditError,
    EngineError,
    EngineUnavailable,
    InvalidRequest,
    InvalidSpan,
    LeylineError,
    ModelUnavailable,
    OutOfSlots,
    OverlappingSpans,
    PinnedMessage,
    PolicyError,
    PolicyLoop,
    StaleSession,
    TrajectoryError,
    UnknownFormat,
    UnknownSession,
    UnsupportedMode,
    UnsupportedModel,
)
from leyline_agent.live_line import LiveLine, live
from leyline_agent.message import Message
from leyline_agent.observer import Observer
from leyline_agent.policy import Pipeline, Policy, policy, transform
from leyline_agent.question import Ask
from leyline_agent.recall.options import Recall
from leyline_agent.receipt import EditReceipt, Reason, Receipt
from leyline_agent.session import Session
from leyline_agent.timing.costs import Prices
from leyline_agent.timing.moment import Moment
from leyline_agent.timing.timing import Timing
from leyline_agent.trajectory import ToolCall, ToolResult, Trajectory
from leyline_agent.turn import Turn
from leyline_agent.warning import LeylineWarning
from leyline_agent.wrap import wrap
from leyline_agent.wrapping.process import (
    instrument_anthropic,
    instrument_litellm,
    instrument_openai,
)
from leyline_agent.wrapping.scope import current_session

__all__ = [
    "Adapter",
    "AdapterError",
    "Ask",
    "BrokenToolPair",
    "CallRefused",
    "CallingAdapter",
    "Capabilities",
    "ContextOverflow",
    "Directive",
    "Edit",
    "EditError",
    "EditReceipt",
    "EngineError",
    "EngineUnavailable",
    "InvalidRequest",
    "InvalidSpan",
    "LeylineError",
    "LeylineWarning",
    "LiveLine",
    "Message",
    "Mode",
    "ModelUnavailable",
    "Moment",
    "Observer",
    "OutOfSlots",
    "OverlappingSpans",
    "PinnedMessage",
    "Pipeline",
    "Policy",
    "PolicyError",
    "PolicyLoop",
    "Prices",
    "Reason",
    "Recall",
    "Receipt",
    "Session",
    "StaleSession",
    "Timing",
    "ToolCall",
    "ToolResult",
    "Trajectory",
    "TrajectoryError",
    "Turn",
    "UnknownFormat",
    "UnknownSession",
    "UnsupportedMode",
    "UnsupportedModel",
    "__version__",
    "current_session",
    "instrument_anthropic",
    "instrument_litellm",
    "instrument_openai",
    "live",
    "policy",
    "transform",
    "wrap",
]

logging.getLogger("leyline").addHandler(logging.NullHandler())
