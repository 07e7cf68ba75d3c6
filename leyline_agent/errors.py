"""Every error Leyline raises on purpose.

    LeylineError
    ├── EditError               an edit or directive that must not be applied
    │   ├── InvalidSpan         a span outside the sequence it edits
    │   ├── OverlappingSpans    two edits of one batch touch the same messages or tokens
    │   ├── BrokenToolPair      a tool call would lose its result, or a result its call
    │   └── PinnedMessage       the edit touches what is pinned (system prompt, task, pins)
    ├── PolicyError             a policy that cannot be found, configured or run
    │   └── PolicyLoop          a policy that edits its own edits over and over
    ├── AdapterError            an engine or provider could not carry out a request
    │   ├── UnsupportedMode     no mode at least as strong as the one asked for is available
    │   ├── EngineUnavailable   the engine does not answer
    │   ├── StaleSession        the caller named a version that is no longer the newest
    │   └── UnknownSession      the engine does not hold the session or version named
    ├── CallRefused             a model call that must not go out unedited, and cannot be edited
    ├── TrajectoryError         a trajectory that cannot be read
    │   └── UnknownFormat       no reader recognises the content
    └── EngineError             the bundled engine cannot do what was asked
        ├── InvalidRequest      a request that cannot be made sense of
        ├── OutOfSlots          the KV pool is full and nothing can be evicted
        ├── ContextOverflow     the prompt does not fit the model's context length
        ├── UnsupportedModel    the model cannot be served
        └── ModelUnavailable    the model's weights are not here and could not be fetched

Each message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations

__all__ = [
    "AdapterError",
    "BrokenToolPair",
    "CallRefused",
    "ContextOverflow",
    "EditError",
    "EngineError",
    "EngineUnavailable",
    "InvalidRequest",
    "InvalidSpan",
    "LeylineError",
    "ModelUnavailable",
    "OutOfSlots",
    "OverlappingSpans",
    "PinnedMessage",
    "PolicyError",
    "PolicyLoop",
    "StaleSession",
    "TrajectoryError",
    "UnknownFormat",
    "UnknownSession",
    "UnsupportedMode",
    "UnsupportedModel",
]


class LeylineError(Exception):
    """Base of every error Leyline raises on purpose."""


class EditError(LeylineError):
    """An edit or directive that must not be applied."""


class InvalidSpan(EditError):
    """A span that lies outside the sequence it edits, or is empty where it must not be."""


class OverlappingSpans(EditError):
    """Two edits of one batch touch the same messages or tokens."""


class BrokenToolPair(EditError):
    """An edit would leave a tool result without its call, or a call without its result."""


class PinnedMessage(EditError):
    """An edit touches a pinned message, the system prompt or the task."""


class PolicyError(LeylineError):
    """A policy that cannot be found, configured or run."""


class PolicyLoop(PolicyError):
    """A policy that edits its own edits over and over, with nothing new in them."""


class AdapterError(LeylineError):
    """An engine or provider could not carry out a request."""


class UnsupportedMode(AdapterError):
    """The engine has no mode at least as strong as the one asked for."""


class EngineUnavailable(AdapterError):
    """The engine does not answer."""


class StaleSession(AdapterError):
    """The caller named a session version that is no longer the newest."""


class UnknownSession(AdapterError):
    """The engine does not hold the session or version named; a full request makes it anew."""


class CallRefused(LeylineError):
    """A policy redacts, no turn can be opened, and so the model call is not made."""


class TrajectoryError(LeylineError):
    """A trajectory that cannot be read."""


class UnknownFormat(TrajectoryError):
    """No reader recognises the content."""


class EngineError(LeylineError):
    """The bundled engine cannot do what was asked."""


class InvalidRequest(EngineError):
    """A request that cannot be made sense of: an empty prompt, messages no template takes."""


class OutOfSlots(EngineError):
    """The KV pool is full and nothing in it can be evicted."""


class ContextOverflow(EngineError):
    """A prompt does not fit the model's context length."""


class UnsupportedModel(EngineError):
    """The model cannot be served, with the reason."""


class ModelUnavailable(EngineError):
    """A model's weights are not on this machine and could not be fetched."""
