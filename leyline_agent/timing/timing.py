"""Timing: the option of a session that says when edits are made."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from leyline_agent import options
from leyline_agent.errors import LeylineError
from leyline_agent.timing.costs import NAMED, OPENAI, Costs, Prices
from leyline_agent.timing.decision import Situation, decide
from leyline_agent.timing.moment import Moment
from leyline_agent.timing.pending import Pending

__all__ = ["Timing", "as_timing"]


class Timing(BaseModel):
    """When edits are made. `Timing()` is what "auto" means; subclasses may decide otherwise.

    Attributes:
        prices: of prompt tokens, or "anthropic" or "openai"; None for what the adapter's or the
            model's name tells, else OpenAI's.
        pays_within: how many later calls an edit may take to pay for the cache that it breaks.
        context: tokens that fit a call; when more would be sent, nothing waits. None: unknown.
        clock: the time, in seconds since 1970; for tests.

    Raises:
        LeylineError: an option does not take the value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    prices: Prices | None = None
    pays_within: int = Field(12, ge=1)
    context: int | None = Field(None, ge=1)
    clock: Callable[[], float] = Field(time.time, exclude=True)

    @model_validator(mode="wrap")
    @classmethod
    def _told_plainly(cls, data: Any, handler: ModelWrapValidatorHandler[Timing]) -> Timing:
        try:
            return handler(data)
        except ValidationError as error:
            told = options.explain("timing", cls.model_fields, error)
            raise LeylineError(told.removeprefix("policy ")) from error

    @field_validator("prices", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, str) and value not in NAMED:
            raise ValueError(f"no prices are named {value!r}; there are {', '.join(NAMED)}")
        return NAMED[value] if isinstance(value, str) else value

    def __str__(self) -> str:
        given = self.model_dump(exclude_defaults=True)
        if self.prices is not None:
            names = [name for name, prices in NAMED.items() if prices == self.prices]
            given["prices"] = names[0] if names else self.prices
        return ":".join(filter(None, ("auto", ",".join(f"{k}={v}" for k, v in given.items()))))

    def decide(
        self, pending: Sequence[Pending], situation: Situation, costs: Costs
    ) -> tuple[Moment, ...]:
        """The moments of a turn's edits: pure, every edit in one of them."""
        return decide(pending, situation, costs, self.pays_within)

    def prices_of(self, *names: str) -> Prices:
        """The prices given, else those of the first provider that one of the names tells."""
        if self.prices is not None:
            return self.prices
        known = ("anthropic", "claude")
        told = any(part in name.lower() for name in names for part in known)
        return NAMED["anthropic"] if told else OPENAI


def as_timing(value: Timing | str | None) -> Timing | None:
    """A timing from what users pass: "now" (also None: no timing), "auto", "auto:key=value,...".

    Raises:
        LeylineError: no timing can be made of it.
    """
    if isinstance(value, Timing) or value in (None, "now"):
        return value if isinstance(value, Timing) else None
    name, _, rest = value.partition(":") if isinstance(value, str) else ("", "", "")
    if name != "auto":
        raise LeylineError(f"timing {value!r}: it is 'now', 'auto', 'auto:key=value' or a Timing")
    return Timing.model_validate(_pairs(rest))


def _pairs(text: str) -> dict[str, str]:
    """The options of "key=value,key=value"."""
    given = {}
    for pair in filter(str.strip, text.split(",")):
        key, separator, value = pair.partition("=")
        if not separator:
            raise LeylineError(f"timing: {pair.strip()!r} is not key=value")
        given[key.strip()] = value.strip()
    return given
