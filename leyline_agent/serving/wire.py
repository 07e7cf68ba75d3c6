"""What requests look like: OpenAI's chat and completion bodies with the `leyline` field."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

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
from leyline_agent.serving.explain import Place, given, refuse, supporting
from leyline_agent.serving.incoming import wrong_edits, wrong_messages, wrong_tools

__all__ = [
    "ERROR_CODES",
    "ChatRequest",
    "CheckedChatRequest",
    "CompletionRequest",
    "DirectivesRequest",
    "EditsRequest",
    "SamplingRequest",
    "TokenCommit",
    "WireDirective",
    "error_code",
]

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


def _stop(value: Any) -> str | None:
    strings = [value] if isinstance(value, str) else value
    if strings is None:
        return None
    if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
        return "expected a string or an array of strings"
    return "a stop string is empty; leave it out" if "" in strings else None


def _one_prompt(value: Any) -> Any:
    """A batch of one is one prompt."""
    batch = isinstance(value, list) and value and isinstance(value[0], str | list)
    return value[0] if batch and len(value) == 1 else value


def _prompt(value: Any) -> str | None:
    if isinstance(value, str):
        return None
    if isinstance(value, list) and value and all(isinstance(each, str | list) for each in value):
        return (
            f"a batch of {len(value)} prompts is not supported; send one request a prompt, they "
            "share what their beginnings have in common"
        )
    if not isinstance(value, list) or not all(type(each) is int for each in value):
        return "expected a string or an array of token ids"
    return None


_Flag = Annotated[bool, BeforeValidator(lambda value: False if value is None else value)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Never = Annotated[Any, supporting(0, otherwise="is not supported; leave it out, or send 0")]
_Off = Annotated[Any, supporting(False, otherwise="is not supported; leave it out")]


class SamplingRequest(BaseModel):
    """The sampling parameters chat and completions share.

    Known parameters that would change the reply and that nobody acts on are refused by name;
    unknown ones are `ignored`, which the answer tells.
    """

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, BeforeValidator(lambda value: "" if value is None else value)] = ""
    temperature: _Number | None = Field(None, ge=0, le=10)
    top_p: _Number | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    seed: int | None = None
    max_tokens: int | None = Field(None, ge=1)
    stop: Annotated[str | list[str] | None, given(_stop)] = None
    stream: _Flag = False
    stream_options: dict[str, Any] | None = None
    n: Annotated[
        Any, supporting(1, otherwise="only one choice is generated; send the request n times")
    ] = None
    frequency_penalty: _Never = None
    presence_penalty: _Never = None
    logit_bias: Annotated[Any, supporting({}, otherwise="is not supported; leave it out")] = None

    @property
    def ignored(self) -> list[str]:
        """Names of the parameters that were sent and that nobody acts on."""
        sent = dict(self.model_extra or {})
        parallel = sent.pop("parallel_tool_calls", None)
        ignored = [name for name, value in sent.items() if value not in (None, False)]
        return sorted([*ignored, "parallel_tool_calls"] if parallel is False else ignored)

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
    """A chat request as the engine takes it; what comes from outside is a `CheckedChatRequest`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Annotated[
        Any,
        supporting("auto", "none", otherwise="cannot be enforced here; use 'auto' or 'none'"),
    ] = None
    functions: Annotated[Any, supporting([], otherwise="is not supported; use tools")] = None
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: _Flag = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    leyline: Commit | None = None
    response_format: Annotated[
        Any,
        supporting(
            {"type": "text"},
            otherwise="only plain text can be generated here; ask for JSON in the prompt",
        ),
    ] = None
    modalities: Annotated[
        Any, supporting(["text"], otherwise="only text can be generated here; send ['text']")
    ] = None
    audio: _Off = None
    web_search_options: _Off = None

    @property
    def limit(self) -> int | None:
        """How many tokens may be generated."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def shown_tools(self) -> list[dict[str, Any]]:
        """The tools the model is shown; none when tool_choice is "none"."""
        return [] if self.tool_choice == "none" else self.tools or []


class CheckedChatRequest(ChatRequest):
    """`POST /v1/chat/completions`: messages this engine can show, and edits that fit them."""

    @model_validator(mode="after")
    def _checked(self) -> CheckedChatRequest:
        found = _wrong(self.messages, self.tools, self.leyline)
        if self.top_logprobs is not None and not self.logprobs:
            found.append((("top_logprobs",), "needs logprobs to be true"))
        refuse(found, None)
        return self


def _wrong(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, commit: Commit | None
) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    found += ((("messages", *place), words) for place, words in wrong_messages(messages))
    found += ((("tools", *place), words) for place, words in wrong_tools(tools or ()))
    if commit is not None:
        edits = wrong_edits(commit.edits, len(messages))
        found += ((("leyline", "edits", *place), words) for place, words in edits)
        found += _misplaced(commit, commit.edits)
    return found


def _misplaced(commit: Commit | TokenCommit, edits: Sequence[Any]) -> list[tuple[Place, str]]:
    """What is wrong with where a commit stands among the versions."""
    if "base_version" in commit.model_fields_set or not (edits or commit.version > 1):
        return _backwards(commit.base_version, commit.version, "leyline")
    what = "the edits" if edits else f"version {commit.version}"
    words = f"is missing; name the version that {what} came from, or 0 to begin a session"
    return [(("leyline", "base_version"), words)]


def _backwards(base_version: int, version: int, *under: str) -> list[tuple[Place, str]]:
    """What is wrong with a version that is not higher than the one it is made from."""
    if version > base_version:
        return []
    words = f"{version} is not higher than base_version {base_version}; versions only go forward"
    return [((*under, "version"), words)]


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

    prompt: Annotated[str | list[int], given(_prompt), BeforeValidator(_one_prompt)]
    max_tokens: int | None = Field(16, ge=1)
    echo: _Off = None
    logprobs: Annotated[
        Any, supporting(otherwise="is not supported here; /v1/chat/completions has logprobs")
    ] = None
    best_of: Annotated[Any, supporting(1, otherwise="only one choice is generated")] = None
    suffix: Annotated[Any, supporting("", otherwise="is not supported; leave it out")] = None
    leyline: TokenCommit | None = None

    @model_validator(mode="after")
    def _checked(self) -> CompletionRequest:
        if self.leyline is not None:
            refuse(_misplaced(self.leyline, self.leyline.directives), None)
        return self


class DirectivesRequest(BaseModel):
    """`POST /v1/leyline/sessions/{id}/directives`: atomic, original coordinates."""

    model_config = ConfigDict(extra="forbid")

    base_version: int = Field(ge=1)
    version: int | None = Field(None, ge=1)
    directives: list[WireDirective]

    @model_validator(mode="after")
    def _checked(self) -> DirectivesRequest:
        if self.version is not None:
            refuse(_backwards(self.base_version, self.version), None)
        return self


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

    @model_validator(mode="after")
    def _checked(self) -> EditsRequest:
        refuse(_wrong(self.messages, self.tools, self.leyline), None)
        return self
