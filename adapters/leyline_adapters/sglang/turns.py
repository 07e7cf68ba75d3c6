"""One request: what it asks (`sampling_params.custom_params["leyline"]`) and what it is told.

SGLang matches a waiting request's prefix again and again until it is admitted; the turn stays the
same, and the last match before the first token is what `Told` speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from leyline_adapters.sglang.ledger import Owner, Plan
from leyline_adapters.sglang.spaces import SHARED, Space
from leyline_adapters.vllm.wire import KEY, Ask, Told
from leyline_agent.receipt import Reason

__all__ = ["Refusal", "Turn", "read_ask"]


@dataclass(frozen=True)
class Refusal:
    """Why nothing is spliced for a request; it is served as any other."""

    reason: Reason
    detail: str


def read_ask(params: Any) -> Ask | Refusal | None:
    """What a request's custom parameters ask: an `Ask` as JSON text or as an object.

    SGLang documents scalars, lists and dictionaries of scalars as values, so text is what passes.
    """
    asked = params.get(KEY) if isinstance(params, Mapping) else None
    if asked is None:
        return None
    try:
        return Ask.model_validate_json(asked) if isinstance(asked, str) else Ask(**asked)
    except (ValidationError, TypeError) as error:
        where = f"custom_params.{KEY} is not an ask: "
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False)[0]
            where += f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        else:
            where += str(error)
        return Refusal(Reason.INVALID_EDIT, where[:500])


@dataclass
class Turn:
    """A request with an ask, from its first match to its end.

    Attributes:
        owner: whose it is; None where the ask could not be read.
        plan: what is to be done.
        prompt: its tokens, without what it samples.
        tries: how often KV was brought for it: an evicted copy is made again once.
        splice_us: host microseconds that took, all together.
    """

    owner: Owner | None
    plan: Plan
    prompt: Sequence[int]
    tries: int = 0
    splice_us: float = 0.0

    @property
    def extra_key(self) -> str | None:
        """The extra key of the request's space."""
        return self.key_of(self.plan.space)

    def key_of(self, space: Space) -> str | None:
        """The tree's extra key for a space of this owner's."""
        tenant = self.owner.extra_key if self.owner is not None else ""
        return f"{tenant}|{KEY}:{space.name}" if space.name else tenant or None

    def fell_short(self, detail: str) -> None:
        """Less could be brought than was planned: it is no longer in the cache."""
        self.plan = replace(self.plan, reason=Reason.EVICTED, detail=detail)

    def give_up(self) -> None:
        """Nothing spliced was brought: the request is served in the tenant's own space."""
        self.plan = replace(self.plan, space=SHARED, pieces=())

    def told(self, found: int) -> Told:
        """What to answer when `found` leading tokens were in the cache."""
        reused = min(found, max(len(self.prompt) - 1, 0))
        first = self.plan.space.spliced_in(self.prompt)
        exact = reused if first is None else min(reused, first)
        return Told(
            handle=self.plan.handle,
            prompt=len(self.prompt),
            reused_exact=exact,
            reused_spliced=reused - exact,
            prefilled=len(self.prompt) - reused,
            splice_us=self.splice_us,
            reason=self.plan.reason.value,
            detail=self.plan.detail,
            spliced_from=first if reused > exact else None,
        )
