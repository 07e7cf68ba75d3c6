"""What requests look like: OpenAI's chat and completion bodies with the `leyline` field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from leyline_agent.adapter import Commit
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import (
    ContextOverflow,
    InvalidRequest,
    InvalidSpan,
    LeylineError,
    OutOfSlots,
    OverlappingSpans,
    StaleSession,
    UnknownSession,
)

__all__ = [
    "ERROR_CODES",
    "ChatRequest",
    "CompletionRequest",
    "DirectivesRequest",
    "EditsRequest",
    "SamplingRequest",
    "TokenCommit",
    "WireDirective",
    "describe",
    "error_code",
    "place_of",
]

_SHOWN_PROBLEMS = 5
_SHOWN_CHARS = 80

ERROR_CODES: dict[str, type[LeylineError]] = {
    "context_length_exceeded": ContextOverflow,  # as OpenAI calls it
    "invalid_request": InvalidRequest,
    "invalid_span": InvalidSpan,
    "out_of_slots": OutOfSlots,
    "overlapping_spans": OverlappingSpans,
    "stale_session": StaleSession,
    "unknown_session": UnknownSession,
}
"""The `code` of an error body, for each error a client can tell apart."""


def error_code(error: LeylineError) -> str:
    """The code of an error; "engine_error" for one no client can mend."""
    kinds = (code for code, kind in ERROR_CODES.items() if isinstance(error, kind))
    return next(kinds, "engine_error")


def describe(problems: Sequence[Mapping[str, Any]], *, under: int = 0) -> str:
    """Pydantic's errors on one line: `leyline.edits[0].mode: Input should be ..., not 'x'`.

    `under`: how many leading parts of their locations to leave out.
    """
    shown = "; ".join(_problem(problem, under) for problem in problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    return shown + (f"; and {more} more" if more > 0 else "")


def _problem(problem: Mapping[str, Any], under: int) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = repr(problem.get("input"))
    simple = isinstance(problem.get("input"), str | int | float) and len(given) < _SHOWN_CHARS
    where = place_of(problem["loc"][under:]) or "body"
    return f"{where}: {message}" + (f", not {given}" if simple else "")


def place_of(location: Sequence[str | int]) -> str:
    """Where in a body, as one would write it in code."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    return "".join(parts).removeprefix(".")


class SamplingRequest(BaseModel):
    """The sampling parameters chat and completions share; unknown fields are ignored.

    Known ones that would change the reply and that nobody acts on are refused.
    """

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    temperature: float | None = Field(None, ge=0, le=10)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: int = Field(1, ge=1, le=1)
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    presence_penalty: float | None = Field(None, ge=0, le=0)
    logit_bias: dict[str, float] | None = Field(None, max_length=0)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class ChatRequest(SamplingRequest):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    functions: list[Any] | None = Field(None, max_length=0)  # what tools were called before
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    leyline: Commit | None = None
    response_format: dict[str, Any] | None = None

    @field_validator("messages")
    @classmethod
    def _roles(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for index, message in enumerate(messages):
            if not isinstance(message.get("role"), str):
                raise ValueError(f"message {index} has no role")
        return messages

    @field_validator("tool_choice")
    @classmethod
    def _choice(cls, choice: Any) -> Any:
        if choice not in (None, "auto", "none"):
            raise ValueError(f"{choice!r} cannot be enforced here; use 'auto' or 'none'")
        return choice

    @field_validator("response_format")
    @classmethod
    def _format(cls, format: dict[str, Any] | None) -> dict[str, Any] | None:
        if format and format.get("type") != "text":
            raise ValueError("only plain text can be generated here; ask for JSON in the prompt")
        return format

    @property
    def limit(self) -> int | None:
        """How many tokens may be generated."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def shown_tools(self) -> list[dict[str, Any]]:
        """The tools the model is shown; none when tool_choice is "none"."""
        return [] if self.tool_choice == "none" else self.tools or []


class WireDirective(BaseModel):
    """The 4-tuple D = (start, end, replacement, mode)."""

    model_config = ConfigDict(extra="forbid")

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    replacement: list[int] = Field(default_factory=list)
    mode: Mode = Mode.REPAIR

    def directive(self) -> Directive:
        """As the engine takes it."""
        return Directive(self.start, self.end, tuple(self.replacement), self.mode)


class TokenCommit(BaseModel):
    """The `leyline` field of a token-level request."""

    model_config = ConfigDict(extra="forbid")

    session: str = Field(min_length=1, max_length=256)
    base_version: int = Field(0, ge=0)
    version: int = Field(1, ge=1)
    directives: list[WireDirective] = Field(default_factory=list)


class CompletionRequest(SamplingRequest):
    """`POST /v1/completions`: text or token ids; 16 tokens unless told otherwise, as at OpenAI."""

    prompt: str | list[int]
    max_tokens: int | None = Field(16, ge=1)
    echo: Literal[False] = False
    logprobs: None = None
    best_of: int | None = Field(None, ge=1, le=1)
    suffix: Literal[""] | None = None
    leyline: TokenCommit | None = None


class DirectivesRequest(BaseModel):
    """`POST /v1/leyline/sessions/{id}/directives`: atomic, original coordinates."""

    model_config = ConfigDict(extra="forbid")

    base_version: int = Field(ge=1)
    version: int | None = Field(None, ge=1)
    directives: list[WireDirective]


class EditsRequest(BaseModel):
    """`POST /v1/leyline/sessions/{id}/edits`: a commit's edits ahead of the next request.

    Attributes:
        messages: the edited view, without new messages.
        tools: as in the chat request.
        leyline: the commit.
    """

    model_config = ConfigDict(extra="ignore")

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    leyline: Commit
