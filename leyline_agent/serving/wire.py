"""What requests look like: OpenAI's chat and completion bodies with the `leyline` field."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from leyline_agent.adapter import Commit
from leyline_agent.directive import Directive, Mode

__all__ = [
    "ChatRequest",
    "CompletionRequest",
    "DirectivesRequest",
    "EditsRequest",
    "SamplingRequest",
    "TokenCommit",
    "WireDirective",
]


class SamplingRequest(BaseModel):
    """The sampling parameters chat and completions share; unknown fields are ignored."""

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
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    leyline: Commit | None = None

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
    """`POST /v1/completions`: text or token ids."""

    prompt: str | list[int]
    echo: Literal[False] = False
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
