"""What the adapter and the connector say to each other: `kv_transfer_params["leyline"]`.

vLLM carries `kv_transfer_params` from a request's body to the connector, and back in the response.
Both sides import this module, one of them inside the engine: it needs pydantic and nothing else.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["KEY", "PROTOCOL", "Ask", "Claim", "Told"]

KEY = "leyline"
PROTOCOL = 1


class Claim(BaseModel):
    """Tokens [start, end) of a source stand at `at` in this prompt; the server verifies it.

    Attributes:
        source: the handle of an earlier request of the same session and tenant.
        start, end: half-open, in that request's tokens (its prompt, then what it sampled).
        at: where the first of them stands in this prompt.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1, max_length=128)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    at: int = Field(ge=0)

    @model_validator(mode="after")
    def _is_a_run(self) -> Claim:
        if self.end <= self.start:
            raise ValueError(f"a claim of no tokens: [{self.start}, {self.end})")
        return self


class Ask(BaseModel):
    """What a request asks of the connector.

    Attributes:
        protocol: PROTOCOL; the connector refuses another with a reason.
        session: the session's id; handles are valid in it alone.
        base: the handle whose lineage the prompt continues, as far as the claims of it go from the
            first token on; "" for canonical KV.
        claims: runs of tokens to reuse, in the order of `at`, not overlapping in the prompt.
        keep: hold this request's KV as a source, and answer with its handle.
        release: handles that are needed no more, given up once this request has been admitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: int = PROTOCOL
    session: str = Field(min_length=1, max_length=256)
    base: str = Field("", max_length=128)
    claims: tuple[Claim, ...] = Field((), max_length=4096)
    keep: bool = True
    release: tuple[str, ...] = Field((), max_length=4096)


class Told(BaseModel):
    """What the connector did. `prompt` = reused_exact + reused_spliced + prefilled.

    Attributes:
        protocol: PROTOCOL, so that an adapter notices a server of another release.
        handle: names this request's KV in later asks; "" when it is not held.
        prompt: tokens of the prompt.
        reused_exact: tokens whose KV a plain prefill of this prompt gives.
        reused_spliced: tokens whose KV saw something that does not stand before them now.
        prefilled: tokens computed.
        splice_us: host time of the copies and rotations, in microseconds.
        reason: a `leyline_agent.receipt.Reason`: "asked" when every claim was honoured.
        detail: the reason in words.
        spliced_from: the first token of the prompt whose KV is spliced; None when none is.
    """

    model_config = ConfigDict(frozen=True)

    protocol: int = PROTOCOL
    handle: str = ""
    prompt: int = Field(0, ge=0)
    reused_exact: int = Field(0, ge=0)
    reused_spliced: int = Field(0, ge=0)
    prefilled: int = Field(0, ge=0)
    splice_us: float = Field(0.0, ge=0)
    reason: str = "asked"
    detail: str = ""
    spliced_from: int | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Told:
        parts = self.reused_exact + self.reused_spliced + self.prefilled
        if parts != self.prompt:
            raise ValueError(f"prompt {self.prompt} is not what was reused and computed, {parts}")
        return self
