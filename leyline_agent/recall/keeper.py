"""Recall in one session: what is archived, what is answered, and what goes wrong on the way.

Nothing here ends a turn. An archive that fails is told of once, with a reason on record, and the
session goes on with one in memory.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from leyline_agent.branch import Draft, Snapshot
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.message import Message, calls
from leyline_agent.proposal import Accepted, Proposal, Skipped
from leyline_agent.recall import tool
from leyline_agent.recall.archive import EVICTED, FAILURES, REDACTED, Archive, Found, Item
from leyline_agent.recall.exchange import POLICY, Exchange, Recalled, Recalls, Spent
from leyline_agent.recall.options import Recall
from leyline_agent.recall.stubs import Ids, is_result, marked
from leyline_agent.receipt import Reason
from leyline_agent.view import Record, View, record
from leyline_agent.warning import LeylineWarning, warn

__all__ = ["Keeper"]

logger = logging.getLogger("leyline.recall")


_DROPPED = "the harness gets its reply with a text in the place of the call"

_REFUSALS = 2
"""How often the model is told in one turn that nothing is shown any more, before it is given up."""


class Keeper:
    """Keeps what one session's policies cut, and answers the model's recalls.

    Called while the session is locked.

    Args:
        settings: what the user set.
        ledger: of the session; gets a key if it has none.
        session: the session's id.
        note: takes what is to be on record.
    """

    def __init__(
        self, settings: Recall, ledger: Recalls, session: str, note: Callable[[Skipped], None]
    ) -> None:
        self.settings = settings
        self._ledger = ledger
        self._session = session
        self._note = note
        # Of a session that goes on it is not known what the file has.
        self._may_hold = bool(ledger.key and settings.path)
        ledger.key = ledger.key or f"{session}/{uuid.uuid4().hex}"
        self._archives = [Archive(ledger.key, settings.path, settings.max_bytes)]
        self._ids = Ids()
        self._redacted: set[str] = set()
        self._to_redact: set[str] = set()
        self._has_warned: set[str] = set()
        self._has_told: set[str] = set()

    def declared(
        self, tools: Sequence[Mapping[str, Any]] | None, *, first: bool
    ) -> Sequence[Mapping[str, Any]] | None:
        """The tools of a call, ours behind them unless recall is off.

        It is switched off for good by a first call without tools: a tool that came later would
        change the head of the prompt. A tool of the same name switches it off in any call.
        """
        if first and not tools:
            self._switch(False, "NoTools", "the first call has no tools, so no tool can be called")
        elif tools and tool.clashes(tools):
            self._switch(False, "NameClash", f"the harness has a tool {tool.NAME} of its own")
        elif first:
            self._switch(True)
        return tool.declared(tools) if tools and self._ledger.on else tools

    def _switch(self, on: bool, kind: str = "", why: str = "") -> None:
        if not on and self._ledger.on is not False:
            self._tell(kind, f"recall is off: {why}", aloud=False)
        self._ledger.on = on

    def mark(self, edit: Edit, records: tuple[Record, ...], view: View) -> tuple[Record, ...]:
        """An edit's replacements, those that cut a tool's result with the line that names its id.

        What is to be forgotten or redacted is not kept, and its stubs have no line.
        """
        forgets = edit.effective_mode() is Mode.FORGET
        old = view.records[edit.start : edit.end]
        if forgets or not self._ledger.on or len(old) != len(records):
            return records
        return tuple(
            new if self._is_gone(known) else self._marked(known, new)
            for known, new in zip(old, records, strict=True)
        )

    def _marked(self, known: Record, new: Record) -> Record:
        made = marked(known, new, self._ids)
        if made is new or known.recall or self._archives[0].fits(known.message.get("content")):
            return made
        if "TooLarge" not in self._has_told:
            self._tell(
                "TooLarge",
                f"an output is larger than the whole archive, {self.settings.max_bytes} bytes "
                "(max_bytes of leyline.Recall): it is not kept, and its stub names no id",
                aloud=False,
            )
        return new

    def _is_gone(self, known: Record) -> bool:
        id = known.recall or self._ids.known(known.message.get("content"))
        return id in self._redacted

    def declares(self, tools: Sequence[Mapping[str, Any]] | None) -> bool:
        """Whether a call with these tools may be answered by a recall."""
        return bool(tools and self._ledger.on)

    def redacting(self, draft: Draft, proposal: Proposal) -> Proposal:
        """A turn's edits, and with what they redact also what recalls have shown of it."""
        accepted = proposal.accepted
        ids = self._redacted_by(draft, accepted)
        if not ids:
            return proposal
        taken = {i for a in accepted if a.edit.redact for i in range(a.edit.start, a.edit.end)}
        copies = [
            _redaction(index, known)
            for index, known in draft.view.inserted()
            if known.recall in ids and index not in taken
        ]
        if not copies:
            return proposal
        left = [a for a in accepted if not any(a.edit.overlaps(copy.edit) for copy in copies)]
        ordered = sorted([*left, *copies], key=lambda a: (a.edit.start, a.edit.end))
        return replace(proposal, accepted=tuple(ordered))

    def settle(self, draft: Draft, accepted: Sequence[Accepted]) -> None:
        """Archive what a turn's edits cut, and delete what they redact."""
        ids = self._redacted_by(draft, accepted)
        if ids or self._to_redact:
            self._redact(ids)
        items = [
            Item(new.recall, old.message.get("content"), one.edit.policy)
            for one in accepted
            for old, new in zip(draft.view.records[one.edit.start :], one.records, strict=False)
            if new.recall and not old.recall and one.edit.end > one.edit.start
        ]
        if items:
            self._keep(items)

    def _redacted_by(self, draft: Draft, accepted: Iterable[Accepted]) -> set[str]:
        """The ids of every content that redacting edits take away, given now if need be."""
        ids = set()
        for edit in (one.edit for one in accepted if one.edit.redact):
            covered = range(*draft.view.covers(edit))
            seen = draft.view.records[edit.start : edit.end]
            for known in (*seen, *(draft.history[index] for index in covered)):
                if is_result(known.message) and not known.redacted:
                    ids.add(known.recall or self._ids.of(known.message.get("content")))
        return ids

    def _redact(self, ids: set[str]) -> None:
        self._redacted |= ids
        wanted = ids | self._to_redact
        self._to_redact = set()
        for archive in self._archives:
            try:
                archive.redact(wanted)
            except FAILURES as error:
                if not self._may_hold:  # Nothing of this session is there, and nothing will be.
                    text = f"the archive {archive.path} cannot be written: {error}"
                    self._tell(type(error).__name__, f"{text}. Nothing was in it", aloud=False)
                    continue
                self._to_redact = wanted
                self._tell(
                    type(error).__name__,
                    f"what was redacted is still in the archive {archive.path}, which cannot be "
                    f"written: {error}. It is tried again in the next turn",
                )

    def _keep(self, items: Sequence[Item]) -> None:
        try:
            self._told_evicted(self._archives[0].keep(items))
            self._may_hold = self._may_hold or len(self._archives) == 1
        except FAILURES as error:
            place = self._archives[0].path
            self._tell(
                type(error).__name__,
                f"the archive {place} cannot be written: {error}. What policies cut from now on "
                "is kept in memory, until the session ends",
            )
            self._archives.insert(0, Archive(self._ledger.key, None, self.settings.max_bytes))
            self._told_evicted(self._archives[0].keep(items))

    def _told_evicted(self, num: int) -> None:
        if num:
            self._tell(
                "Evicted",
                f"{num} outputs left the archive, the oldest: it holds {self.settings.max_bytes} "
                "bytes (max_bytes of leyline.Recall)",
                aloud=False,
            )

    def hides(self, reply: Message, spent: Spent) -> bool:
        """Whether a reply is a recall and nothing else, and one that is answered."""
        made = calls(reply)
        only_ours = bool(made) and all(map(tool.is_recall, made))
        return bool(self._ledger.on) and only_ours and spent.refused < _REFUSALS

    def answered(
        self, reply: Message | None, spent: Spent, *, hidden: bool
    ) -> tuple[Message | None, Exchange | None]:
        """What a reply is to the harness, and the recall in it.

        Args:
            reply: the model's.
            spent: on recalls in this turn; grows.
            hidden: the harness is to see nothing of it.
        """
        if reply is None or not self._ledger.on or not tool.asked(reply):
            return reply, None
        left = tool.without_recalls(reply)
        if hidden:
            return None, self._exchange(reply, spent)
        if "tool_calls" in left:
            return left, self._exchange(reply, spent)
        if spent.refused:
            why = f"after {spent.recalls} recalls in one turn (max_per_turn of leyline.Recall)"
            self._tell("RecallBound", f"the model went on recalling {why}; {_DROPPED}", aloud=False)
        else:
            why = "where it cannot be answered: behind a call that still runs, or from a caller "
            why += "that does not call Turn.advance"
            self._tell("RecallOutOfPlace", f"the model recalled {why}; {_DROPPED}", aloud=False)
        return left, None

    def _exchange(self, reply: Message, spent: Spent) -> Exchange:
        results, recalled = [], []
        before = spent.refused
        for wanted in tool.asked(reply):
            if spent.recalls >= self.settings.max_per_turn:
                spent.refused = before + 1
                content = tool.exhausted(spent.recalls, again=before > 0)
                told = Recalled(wanted.id, False)
            else:
                spent.recalls += 1
                content, told = self._shown(wanted)
            known = record(tool.result(wanted.call, content))
            results.append(known._replace(recall=told.id if told.found else ""))
            recalled.append(told)
        return Exchange(record(reply), tuple(results), tuple(recalled))

    def _shown(self, wanted: tool.Asked) -> tuple[Any, Recalled]:
        found, error = self._find(wanted.id) if wanted.id else (None, None)
        if error is not None:
            self._tell(type(error).__name__, f"the archive cannot be read: {error}")
            return tool.unreadable(wanted.id), Recalled(wanted.id, False)
        content = tool.answer(found, wanted, self.settings.max_chars)
        if found is None or found.gone:
            return content, Recalled(wanted.id, False)
        again = wanted.id in self._ledger.shown and not wanted.start
        if again:
            self._tell(
                "RecalledAgain",
                f"the model asked again for an output that {found.policy or 'a policy'} had cut: "
                "it cuts too much. session.stats().repeated counts such recalls",
            )
        return content, Recalled(wanted.id, True, again, found.policy)

    def _find(self, id: str) -> tuple[Found | None, Exception | None]:
        if id in self._redacted:
            return Found(None, "", REDACTED), None
        failed: Exception | None = None
        evicted: Found | None = None
        for archive in self._archives:
            try:
                found = archive.find(id)
            except FAILURES as error:
                failed = error
                continue
            if found is not None and found.gone != EVICTED:
                return found, None
            evicted = evicted or found
        return evicted, failed

    def restore(self, heads: Iterable[Snapshot]) -> None:
        """Archive again what the stubs of a resumed session name, where it is not there."""
        if heads and not self._ledger.on:
            self._switch(False, "NotFromTheFirst", "the session began without it")
        items = []
        for head in heads:
            named: dict[str, str] = {}
            for piece in head.view.pieces:
                for known in piece.records:
                    if known.recall and not named.get(known.recall):  # A recall cut nothing.
                        named[known.recall] = "" if piece.policy == POLICY else piece.policy
            for known in head.history:
                content = known.message.get("content")
                if named and is_result(known.message) and not known.redacted:
                    id = self._ids.claim(content, named)
                    items += [Item(id, content, named[id])] if id else []
        if items:
            self._keep(items)

    def _tell(self, kind: str, text: str, *, aloud: bool = True) -> None:
        """Put something on record; of the first case of a kind the user is warned."""
        self._note(Skipped(POLICY, "", kind, text))
        self._has_told.add(kind)
        logger.warning("session %s: %s", self._session, text)
        if not aloud or kind in self._has_warned:
            return
        self._has_warned.add(kind)
        try:
            warn(f"{text}. Further cases are in session.skipped and the log only")
        except LeylineWarning:  # Warnings are errors to this user; the agent goes on.
            logger.error("session %s: %s", self._session, text)


def _redaction(index: int, known: Record) -> Accepted:
    gone = record({**known.message, "content": "[redacted]"})
    edit = Edit(
        index, index + 1, (gone.message,), Mode.FORGET, "redacted", policy=POLICY, redact=True
    )
    return Accepted(edit, (gone,), Mode.FORGET, Reason.ASKED)
