"""What a fidelity measurement writes down: a line an edit."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from leyline_evals.fidelity.cases import Kind, Order

__all__ = ["ArmRow", "Config", "EditRow", "Selection"]


class Row(BaseModel):
    """Base of what is written down; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Selection(Row):
    """Which edits are measured.

    Attributes:
        seed: chooses runs, turns and edits.
        part: of the trajectories, by a hash of their ids; "all" for every one.
        tokens: shortest and longest unedited prompt; of a longer run the task and as many of the
            last turns as fit.
        head_chars, result_chars: messages of the task, and results, are cut to so many characters.
        turns: of a run.
        edits: of a turn.
        cut: fewest tokens of a result that is stubbed or dropped.
        suffix: fewest tokens kept behind an edit.
        continuation: predictions are compared over at most so many tokens.
        least_continuation: a reply shorter than this is left out.
        generated: of so many edits one is generated; 0 for none.
    """

    seed: int = 0
    part: Literal["search", "test", "all"] = "all"
    tokens: tuple[int, int] = (900, 1800)
    head_chars: int = Field(1200, ge=1)
    result_chars: int = Field(2400, ge=1)
    turns: int = Field(2, ge=1)
    edits: int = Field(2, ge=1)
    cut: int = Field(100, ge=1)
    suffix: int = Field(200, ge=1)
    continuation: int = Field(64, ge=1)
    least_continuation: int = Field(8, ge=1)
    generated: int = Field(3, ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> Selection:
        low, high = self.tokens
        if not 0 < low <= high:
            raise ValueError(f"a prompt of {low} to {high} tokens is none")
        return self


class Config(Row):
    """What is measured how; a measurement is resumed with the same.

    Attributes:
        model: as it was asked for.
        files: names of the files of recorded runs.
        arms: what each arm was parsed from, by name.
        orders: when the edits come.
        selection: which edits.
        calls: of so many edits of recorded runs one is asked for its next call; 0 for none.
        call_tokens: at most so many tokens of it.
        floor_chunk: tokens a pass, of the honest prefill that tells the noise.
        registered: name and hash of the registration followed, "" for none.
    """

    model: str
    files: tuple[str, ...] = ()
    arms: dict[str, str]
    orders: tuple[Order, ...] = (Order.EDIT_FIRST, Order.EDIT_LAST)
    selection: Selection = Selection()
    calls: int = Field(4, ge=0)
    call_tokens: int = Field(48, ge=1)
    floor_chunk: int = Field(333, ge=1)
    registered: str = ""


class ArmRow(Row):
    """How near one arm is to an honest prefill of the same prompt.

    Attributes:
        kl: KL(honest || arm) in nats, mean over the continuation's tokens.
        kl_max: of the worst token.
        top1: how often the likeliest token agrees.
        recomputed: kept tokens that were computed again.
        said: log probability of each continuation asked for, by its name.
        right: for a copy, whether every token of it was the likeliest.
        same_call: whether the next call is the same; None where not asked.
    """

    kl: float
    kl_max: float
    top1: float
    recomputed: int = 0
    said: dict[str, float] = Field(default_factory=dict)
    right: bool | None = None
    same_call: bool | None = None


class EditRow(Row):
    """One edit.

    Attributes:
        key, cluster, kind: as in `Case`.
        skipped: why it was not measured, "" where it was; then nothing else is known.
        prompt: tokens before the edit.
        start: where the edit begins.
        removed, inserted: its tokens.
        suffix: kept tokens behind it, in each order.
        appended: tokens computed behind the kept ones, likewise.
        tokens: of the continuation.
        controls: honest itself, honest in another chunking ("noise") and the edit undone
            ("unedited").
        arms: of each order, by name.
        seconds: it took.
    """

    key: str
    cluster: str
    kind: Kind
    skipped: str = ""
    prompt: int = 0
    start: int = 0
    removed: int = 0
    inserted: int = 0
    suffix: dict[Order, int] = Field(default_factory=dict)
    appended: dict[Order, int] = Field(default_factory=dict)
    tokens: int = 0
    controls: dict[str, ArmRow] = Field(default_factory=dict)
    arms: dict[Order, dict[str, ArmRow]] = Field(default_factory=dict)
    seconds: float = 0.0
