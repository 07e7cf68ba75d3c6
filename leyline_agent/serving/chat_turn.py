"""One chat request between its prompt and its commit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from leyline_agent.adapter import Commit
from leyline_agent.lowering import common_prefix
from leyline_agent.message import Message
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.generate import Generated, Generation
from leyline_agent.serving.host import Host
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.run import Need, Run
from leyline_agent.serving.scrub import redact
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.tool_calls import ToolCall, ToolCallParser
from leyline_agent.serving.turns import Turn
from leyline_agent.serving.wire import ChatRequest, TokenCommit

__all__ = ["ChatTurn", "Piece", "tell", "usage"]

Piece = str | ToolCall
"""A part of a reply: text, or a whole tool call."""


@dataclass
class ChatTurn:
    """A chat request whose prompt is computed or about to be.

    Attributes:
        reply: the assistant message so far.
    """

    engine: Host
    chat: ChatRenderer
    request: ChatRequest
    session: EngineSession | None
    planned: Turn
    run: Run
    generation: Generation
    reply: Message = field(default_factory=lambda: {"role": "assistant", "content": None})
    _told_logprobs: int = 0

    @property
    def generated(self) -> Generated:
        """What has been generated so far."""
        return self.generation.result

    def pieces(self) -> Iterator[Piece | Need]:
        """Generate: text as it becomes certain, calls when they are whole, and what it waits for.

        `reply` holds all of it at the end.
        """
        parser = ToolCallParser(self.request.shown_tools)
        for item in self.generation:
            if isinstance(item, str):
                yield from map(self._said, parser.feed(item))
            else:
                yield item
        yield from map(self._said, parser.finish())
        if self.reply["content"] is None and "tool_calls" not in self.reply:
            self.reply["content"] = ""

    def _said(self, piece: Piece) -> Piece:
        if isinstance(piece, str):
            self.reply["content"] = (self.reply["content"] or "") + piece
        else:
            self.reply.setdefault("tool_calls", []).append(piece)
        return piece

    def tokens_of(self, reply: Message) -> list[int]:
        """The tokens a known reply would have been generated as."""
        view, tools = self.request.messages, self.request.shown_tools
        replies = self.session.replies if self.session else None
        whole = self.chat.render([*view, reply], tools, replies)
        prompt = self.planned.prompt.tokens
        behind = whole[common_prefix(prompt, whole) :]
        if len(whole) - len(behind) < len(prompt):
            # The reply's first characters were merged with the prompt's last ones.
            before, after = (self.chat.text(messages, tools) for messages in (view, [*view, reply]))
            behind = self.chat.encode(after.removeprefix(before))
        stops = self.chat.stop_ids
        return behind[: next((i for i, t in enumerate(behind) if t in stops), len(behind))]

    @property
    def finish_reason(self) -> str:
        """OpenAI's finish reason."""
        return "tool_calls" if self.reply.get("tool_calls") else self.generated.finish_reason

    def usage(self) -> dict[str, Any]:
        """OpenAI's usage."""
        return usage(self.run.receipt, len(self.generated.tokens))

    def logprobs(self) -> dict[str, Any] | None:
        """OpenAI's logprobs, where asked for."""
        if self.generated.logprobs is None:
            return None
        return {"content": self.generated.logprobs}

    def new_logprobs(self) -> dict[str, Any]:
        """A streamed choice's logprobs: those of the tokens since the last call."""
        entries = self.generated.logprobs
        if entries is None:
            return {}
        told, self._told_logprobs = self._told_logprobs, len(entries)
        return {"logprobs": {"content": entries[told:]}}

    def commit(self) -> Receipt:
        """Acknowledge: the reply and the sequence become the session's new version."""
        commit = self.request.leyline
        receipt = tell(self.run.receipt, self.planned, commit)
        if self.session is None or commit is None:
            return receipt
        with self.engine.exclusive():
            sequence = self.run.finish()
            if any(edit.redact for edit in commit.edits):
                view = self.request.messages
                receipt = redact(self.engine, self.session, sequence, receipt, self.planned, view)
                self.chat.forget_texts()
            if not self.generation.cut:
                self.session.replies.keep(self.reply, self.generated.tokens)
            version = Version(
                number=commit.version,
                base=commit.base_version,
                digest=commit.view_digest,
                messages=[*self.request.messages, self.reply],
                sequence=sequence,
                prompt_len=receipt.prompt,
                receipt=receipt,
                tools=self.request.shown_tools,
                pending=tuple(self.generated.tokens[len(sequence) - receipt.prompt :]),
            )
            self.session.add(version)
        return receipt


def tell(receipt: Receipt, turn: Turn, commit: Commit | TokenCommit | None) -> Receipt:
    """A run's receipt with what the engine does not know.

    That is the commit, the turn's reason, and the edits that became no directive.
    """
    edits = list(receipt.edits)
    for place, edit in reversed(turn.without):
        edits.insert(place, edit)
    detail = "; ".join(part for part in (turn.detail, receipt.detail) if part)
    known: dict[str, Any] = {"detail": detail, "edits": tuple(edits)}
    if turn.reason is not Reason.ASKED:  # what the plan met comes before what the engine did
        known["reason"] = turn.reason
    if commit is not None:
        known["session"] = commit.session
        known["base_version"] = commit.base_version
        known["version"] = commit.version
    return receipt.model_copy(update=known)


def usage(receipt: Receipt, generated: int) -> dict[str, Any]:
    """OpenAI's usage; cached tokens are those the engine did not compute."""
    return {
        "prompt_tokens": receipt.prompt,
        "completion_tokens": generated,
        "total_tokens": receipt.prompt + generated,
        "prompt_tokens_details": {"cached_tokens": receipt.reused},
    }
