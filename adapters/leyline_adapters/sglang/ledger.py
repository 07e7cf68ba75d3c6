"""What the plug-in remembers between requests: which tokens a handle stands for, and where.

KV itself is the tree's business: nothing is pinned, SGLang evicts as it always does, and a claim
whose source is gone is shortened. All names come from one secret that every rank has, so that
ranks agree without talking to each other and clients can guess nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from leyline_adapters.sglang.spaces import SHARED, Piece, Source, Space, as_tokens, spliced_from
from leyline_adapters.vllm.claims import verify
from leyline_adapters.vllm.wire import Ask
from leyline_agent.receipt import Reason

__all__ = ["Ledger", "Owner", "Plan"]

SOURCES = 8192
TOKENS = 1 << 25


class Owner(NamedTuple):
    """Who may use a handle: a tenant (extra key, cache salt) and a session of theirs."""

    extra_key: str
    cache_salt: str
    session: str


@dataclass(frozen=True)
class Plan:
    """What is done for one request.

    Attributes:
        handle: the name of its KV, once it has finished.
        space: where it looks up, and leaves, its KV.
        pieces: what is copied into that space first; () when nothing needs to be.
        reason, detail: as `Told` says them.
    """

    handle: str
    space: Space = SHARED
    pieces: tuple[Piece, ...] = ()
    reason: Reason = Reason.ASKED
    detail: str = ""


class Ledger:
    """Sources by handle, the least recently used forgotten first.

    Args:
        secret: what all ranks of one server share.
        sources: how many are remembered.
        tokens: of how many tokens in all; eight bytes each.
    """

    def __init__(self, secret: bytes, sources: int = SOURCES, tokens: int = TOKENS) -> None:
        self._secret = secret
        self._most = sources
        self._room = tokens
        self._held = 0
        self._known: OrderedDict[tuple[Owner, str], Source] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def plan(self, owner: Owner, rid: str, prompt: Sequence[int], ask: Ask) -> Plan:
        """What to do for a request; forgets what it releases."""
        handle = self._name("handle", owner, rid) if ask.keep else ""
        plan = self._plan(owner, handle, as_tokens(prompt), ask)
        for name in ask.release:
            self._drop((owner, name))
        return plan

    def keep(self, owner: Owner, plan: Plan, tokens: Sequence[int]) -> None:
        """Remember a finished request as a source; `tokens` are those that have KV."""
        if not plan.handle or not tokens:
            return
        key = (owner, plan.handle)
        self._drop(key)
        self._known[key] = Source(as_tokens(tokens), plan.space)
        self._held += len(tokens)
        while len(self._known) > self._most or self._held > self._room:
            self._drop(next(iter(self._known)))

    def find(self, owner: Owner, handle: str) -> Source | None:
        """The source a handle names, for its owner and nobody else."""
        source = self._known.get((owner, handle))
        if source is not None:
            self._known.move_to_end((owner, handle))
        return source

    def clear(self) -> None:
        """Forget every source."""
        self._known.clear()
        self._held = 0

    def _plan(self, owner: Owner, handle: str, prompt: array[int], ask: Ask) -> Plan:
        known = verify(prompt, ask, lambda name: self.find(owner, name) or Reason.UNKNOWN_SESSION)
        space = SHARED if known.parent is None else known.parent.space
        pieces = _adjoining(known.claims, len(prompt) - 1)
        reason, detail = known.reason, known.detail
        if reason is Reason.ASKED and len(pieces) < len(known.claims):
            reason = Reason.INVALID_EDIT
            detail = "claims reach past the prompt, or leave a gap: what is behind it is computed"
        # The same tokens again would be found in a space that was left, and not be computed.
        left = known.leaves and space != SHARED
        if all(piece.in_place for piece in pieces) and not (left and pieces):
            return Plan(handle, SHARED if left else space, (), reason, detail)
        made = prompt[: pieces[-1].stop]
        name = self._name("space", owner, *self._facts(pieces), made.tobytes())
        return Plan(handle, Space(name, made, spliced_from(pieces)), pieces, reason, detail)

    def _facts(self, pieces: Sequence[Piece]) -> list[str]:
        """What decides the KV that is brought: the same again finds what is there already."""
        return [
            f"{p.source.space.name} {p.start} {p.end} {p.at} "
            + hashlib.sha256(p.source.tokens[: p.end].tobytes()).hexdigest()
            for p in pieces
        ]

    def _name(self, kind: str, owner: Owner, *parts: str | bytes) -> str:
        digest = hmac.new(self._secret, json.dumps([kind, *owner]).encode(), hashlib.sha256)
        for part in parts:
            data = part.encode() if isinstance(part, str) else part
            digest.update(len(data).to_bytes(8, "big") + data)
        return digest.hexdigest()[:40]

    def _drop(self, key: tuple[Owner, str]) -> None:
        source = self._known.pop(key, None)
        if source is not None:
            self._held -= len(source.tokens)


def _adjoining(claims: Sequence[Piece], limit: int) -> tuple[Piece, ...]:
    """The claims from the first token on, up to a gap; the prompt's last token is computed."""
    found: list[Piece] = []
    stop = 0
    for claim in claims:
        end = min(claim.end, claim.start + limit - claim.at)
        if claim.at != stop or end <= claim.start:
            break
        found.append(replace(claim, end=end))
        stop = found[-1].stop
    return tuple(found)
