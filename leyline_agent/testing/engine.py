"""A simulated engine: it keeps sequences of sized messages and does what commits say to them.

What it does to a message stands for what a real engine does to its tokens. The receipts add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from leyline_agent.adapter import Capabilities, Commit, WireEdit
from leyline_agent.directive import Mode, strongest
from leyline_agent.message import Message, digest
from leyline_agent.proposal import mode_for
from leyline_agent.receipt import EditReceipt, Reason, Receipt
from leyline_agent.testing.model import tokens

__all__ = ["SimulatedEngine"]

BOUNDARY = 16
"""Tokens REPAIR computes again at the front of a reused run."""


class _Cached(NamedTuple):
    """A message whose KV is held; `spliced` when it saw something that is no longer there."""

    digest: str
    size: int
    spliced: bool = False


class SimulatedEngine:
    """Keeps every version of every session; `capabilities` says what it can do."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._sessions: dict[str, dict[int, list[_Cached]]] = {}

    def serve(self, commit: Commit, messages: Sequence[Message]) -> Receipt:
        """Do what a request asks, and keep its prompt as the new version."""
        versions = self._sessions.setdefault(commit.session, {0: []})
        fresh = [_Cached(digest(m), tokens(m)) for m in messages]
        base = versions.get(commit.base_version)
        work = _Work(base or [], commit, fresh, self._capabilities)
        versions[commit.version] = work.sequence
        return work.receipt(Reason.UNKNOWN_SESSION if base is None else Reason.ASKED)

    def add_reply(self, commit: Commit, reply: Message) -> None:
        """The reply was computed on the version's prompt and is held behind it."""
        self._sessions[commit.session][commit.version].append(_Cached(digest(reply), tokens(reply)))


class _Work:
    """One prompt in the making: what is held, edited as the commit says, and what is new."""

    def __init__(
        self,
        base: Sequence[_Cached],
        commit: Commit,
        fresh: Sequence[_Cached],
        capabilities: Capabilities,
    ) -> None:
        self.sequence: list[_Cached] = []
        self._commit, self._fresh, self._capabilities = commit, fresh, capabilities
        self._held = list(base[: commit.base_len])
        self._previous = _size(base)
        self._mode: Mode | None = None
        self._edits: list[EditReceipt] = []
        self._kept = self._inserted = self._prefilled = self._recomputed = 0
        cursor = 0
        for edit in commit.edits:
            self._keep(cursor, edit.messages[0])
            self._edit(edit)
            cursor = edit.messages[1]
        self._keep(cursor, len(self._held))
        self._prefilled += _size(fresh[len(self.sequence) :])
        self.sequence += fresh[len(self.sequence) :]

    def _keep(self, start: int, end: int) -> None:
        """Hold on to messages [start, end); from one that is another in the prompt on, to none."""
        place = len(self.sequence)
        for index, (held, new) in enumerate(
            zip(self._held[start:end], self._fresh[place:], strict=False), start=start
        ):
            if held.digest != new.digest:
                del self._held[index:]
                break
        run = self._held[start:end]
        self._kept += _size(run)
        if self._mode is Mode.FORGET:
            self._prefilled += _size(run)
            run = [cached._replace(spliced=False) for cached in run]
        elif self._mode is not None:
            self._recomputed += self._window(run)
            run = [cached._replace(spliced=True) for cached in run]
        self.sequence += run

    def _window(self, run: Sequence[_Cached]) -> int:
        repairs = self._mode is Mode.REPAIR and self._capabilities.repair != "none"
        return min(BOUNDARY, _size(run)) if repairs else 0

    def _edit(self, edit: WireEdit) -> None:
        start, end = edit.messages
        new = self._fresh[len(self.sequence) : len(self.sequence) + edit.count]
        seen = start < len(self._held)
        mode, reason = mode_for(edit.mode, None, self._capabilities)
        if self._mode is Mode.FORGET and mode is not Mode.FORGET:
            mode, reason = Mode.FORGET, Reason.BEHIND_FORGET
        if seen:
            self._mode = strongest(self._mode, mode)
            self._inserted += _size(new)
            self._prefilled += _size(new)
            self.sequence += new
        self._edits.append(
            EditReceipt(
                start=_size(self._held[:start]),
                end=_size(self._held[:end]),
                inserted=_size(new),
                mode_asked=edit.mode,
                mode_used=mode,
                reason=reason if seen else Reason.UNSEEN,
                suffix=0 if mode is Mode.FORGET else _size(self._held[end:]),
                policy=edit.policy,
            )
        )

    def receipt(self, reason: Reason) -> Receipt:
        """What was done, in figures."""
        prompt = _size(self.sequence)
        spliced = _size([c for c in self.sequence if c.spliced])
        return Receipt(
            previous=self._previous,
            prompt=prompt,
            reused_exact=prompt - spliced - self._prefilled,
            reused_spliced=spliced - self._recomputed,
            recomputed=self._recomputed,
            prefilled=self._prefilled,
            removed=self._previous - self._kept,
            inserted=self._inserted,
            appended=prompt - self._kept - self._inserted,
            edits=tuple(self._edits),
            reason=reason,
            repair=self._capabilities.repair,
        )


def _size(run: Sequence[_Cached]) -> int:
    return sum(cached.size for cached in run)
