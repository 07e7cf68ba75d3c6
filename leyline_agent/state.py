"""The state of a session that a journal can rebuild: heads, versions, receipts, redactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from leyline_agent import branch
from leyline_agent.branch import Draft, Snapshot
from leyline_agent.directive import Mode
from leyline_agent.proposal import Accepted
from leyline_agent.recall.exchange import Exchange, Recalls
from leyline_agent.receipt import Receipt
from leyline_agent.timing.ledger import Ledger
from leyline_agent.trajectory import Observations
from leyline_agent.view import Record

__all__ = ["Gone", "State"]

MAX_HEADS = 32
"""Branches a session can still find; the least recently continued are dropped first."""

MAX_UNANSWERED = 64

MAX_ANSWERS = 64


@dataclass(frozen=True)
class Gone:
    """What a commit redacts.

    Attributes:
        places: history index and digest of each message that is gone.
        stubs: digests of replacements that stood for such messages in the view.
    """

    places: frozenset[tuple[int, str]] = frozenset()
    stubs: frozenset[str] = frozenset()


@dataclass
class State:
    """What a session is made of, apart from its configuration.

    Attributes:
        id: the session's name.
        observations, mode_floor: how it reads trajectories, and the weakest mode it allows.
        beginning: the empty snapshot.
        heads: the snapshots that nothing continues, the newest first.
        last_version: the highest number given out.
        unanswered: (base, view digest) -> version of calls that got no answer; made again, such
            a call is a retry and keeps its number.
        receipts: oldest first.
        redacted: history index and digest of every message that is gone.
        recalls: what is known of recalls.
        ledger: what timing needs to know of the last call.
        ahead: versions that edits ahead of a call made.
        answers: question's key -> what a model said, the last ones; none from before a redaction.
        spent: policy -> tokens that its questions have cost.
        counts: totals that the receipts do not tell; see `Stats`.
    """

    id: str
    observations: Observations = "tool"
    mode_floor: Mode | None = None
    heads: list[Snapshot] = field(default_factory=list)
    last_version: int = 0
    unanswered: dict[tuple[int, str], int] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    redacted: set[tuple[int, str]] = field(default_factory=set)
    recalls: Recalls = field(default_factory=Recalls)
    ledger: Ledger = field(default_factory=Ledger)
    ahead: set[int] = field(default_factory=set)
    answers: dict[str, str] = field(default_factory=dict)
    spent: dict[str, int] = field(default_factory=dict)
    counts: dict[str, float] = field(
        default_factory=lambda: {"failed": 0, "edits": 0, "held": 0, "skipped": 0, "policy_ms": 0.0}
    )

    def __post_init__(self) -> None:
        self.beginning = branch.root(self.observations)

    @property
    def newest(self) -> Snapshot:
        """The version committed last; the beginning when there is none."""
        return self.heads[0] if self.heads else self.beginning

    @property
    def current(self) -> set[int]:
        """The newest version, and where edits ahead made it, those it came from: all it follows."""
        versions = {self.newest.version}
        for receipt in reversed(self.receipts):
            if receipt.version in versions and receipt.version in self.ahead:
                versions.add(receipt.base_version)
        return versions

    def reserve(self, base: int, digest: str) -> int:
        """The version number of a call: the next one, or that of the call it repeats."""
        again = self.unanswered.pop((base, digest), None)
        if again is not None:
            return again
        self.last_version += 1
        return self.last_version

    def release(self, base: int, digest: str, version: int) -> None:
        """The call got no answer; the same call again is its retry."""
        self.unanswered[base, digest] = version
        while len(self.unanswered) > MAX_UNANSWERED:
            del self.unanswered[next(iter(self.unanswered))]

    def answer(self, key: str, text: str) -> None:
        """Keep an answer. A turn's trajectory goes on holding those that it began with."""
        kept = list({**self.answers, key: text}.items())
        self.answers = dict(kept[-MAX_ANSWERS:])

    def spend(self, policy: str, tokens: int) -> None:
        """A policy's question has cost so much."""
        self.spent[policy] = self.spent.get(policy, 0) + tokens

    def commit(
        self,
        draft: Draft,
        version: int,
        accepted: Sequence[Accepted],
        reply: Record | None,
        exchange: Exchange | None = None,
    ) -> tuple[Snapshot, Gone]:
        """Make the turn a version; what it continues to its end is a head no more."""
        made = branch.committed(draft, version, accepted, reply, exchange)
        if exchange is not None:
            self.recalls.add(exchange, hidden=reply is None)
        left = (
            head
            for head in self.heads
            if head.version != draft.base or len(head.history) != draft.kept
        )
        self.heads = [made, *left][:MAX_HEADS]
        gone = _gone(draft, accepted)
        self.redacted |= gone.places
        if gone.places:
            self.answers = {}  # They may quote it.
        if self.redacted or gone.stubs:
            made, *others = self.heads
            others = [branch.redacted(head, self.redacted, gone.stubs) for head in others]
            self.heads = [branch.redacted(made, self.redacted), *others]
        return self.heads[0], gone


def _gone(draft: Draft, accepted: Iterable[Accepted]) -> Gone:
    places: set[tuple[int, str]] = set()
    stubs: set[str] = set()
    for edit in (a.edit for a in accepted if a.edit.redact):
        covered = range(*draft.view.covers(edit))
        places.update((index, draft.history[index].digest) for index in covered)
        stubs.update(record.digest for record in draft.view.records[edit.start : edit.end])
    return Gone(frozenset(places), frozenset(stubs))
