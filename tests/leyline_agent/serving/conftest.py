"""A client of the chat service that keeps a conversation, and a check of who holds which slot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from leyline_agent.adapter import Commit, WireEdit
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.edit import apply as apply_edits
from leyline_agent.message import Message, digest, view_digest
from leyline_agent.receipt import Receipt

if TYPE_CHECKING:
    from torch import Tensor

    from leyline_agent.serving.chat import ChatService
    from leyline_agent.serving.wire import ChatRequest, EditsRequest

SYSTEM = {"role": "system", "content": "You are a careful programmer. Read the file again."}
TASK = {"role": "user", "content": "List the folder, run the tests."}


@dataclass
class Conversation:
    """One session as a harness sees it: a view, a version, and turns whose replies are known.

    Edits are in indices of the view with the turn's new messages behind it.
    """

    service: ChatService
    id: str = "s"
    tenant: str = ""
    view: list[Message] = field(default_factory=lambda: [SYSTEM, TASK])
    base_len: int = 0
    version: int = 0

    def request(
        self, new: Sequence[Message] = (), edits: Sequence[Edit] = (), **known: Any
    ) -> tuple[ChatRequest, list[Message]]:
        """The next turn's request, and the view it shows."""
        from leyline_agent.serving.wire import ChatRequest

        messages = apply_edits(edits, [*self.view, *new])
        leyline = self.commit(messages, edits, **known.pop("commit", {}))
        return ChatRequest(messages=messages, leyline=leyline, **known), messages

    def commit(self, messages: Sequence[Message], edits: Sequence[Edit], **known: Any) -> Commit:
        """The commit of a turn."""
        told = {
            "session": self.id,
            "base_version": self.version,
            "version": self.version + 1,
            "view_digest": view_digest(map(digest, messages)),
            "base_len": self.base_len,
            "edits": tuple(map(wire, edits)),
        }
        return Commit(**{**told, **known})

    def turn(
        self, *new: Message, edits: Sequence[Edit] = (), reply: Any = "fine", **known: Any
    ) -> tuple[Receipt, Tensor | None]:
        """Run a turn whose reply is known; its receipt and the logits behind the prompt."""
        if not isinstance(reply, dict):
            reply = {"role": "assistant", "content": reply}
        request, messages = self.request(new, edits, **known)
        receipt, logits = self.service.recorded(request, reply, self.tenant, score=True)
        self.took([*messages, reply], receipt.version)
        return receipt, None if logits is None else logits[0]

    def edit_ahead(self, *edits: Edit, **known: Any) -> Receipt:
        """Apply edits before the next turn."""
        from leyline_agent.serving.edits import edit_ahead

        request, messages = self.ahead(edits, **known)
        receipt = edit_ahead(self.service, request, self.tenant)
        self.took(messages, receipt.version)
        return receipt

    def ahead(self, edits: Sequence[Edit], **known: Any) -> tuple[EditsRequest, list[Message]]:
        """A request to edit ahead, and the view it shows."""
        from leyline_agent.serving.wire import EditsRequest

        messages = apply_edits(edits, self.view)
        commit = self.commit(messages, edits, **known)
        return EditsRequest(messages=messages, leyline=commit), messages

    def took(self, view: list[Message], version: int) -> None:
        """The engine has acknowledged a version."""
        self.view, self.base_len, self.version = view, len(view), version

    @property
    def held(self) -> Any:
        """What the engine holds of the session."""
        return self.service.sessions.find(self.tenant, self.id)

    @property
    def sequence(self) -> Any:
        """The newest version's cached sequence."""
        return self.held.newest.sequence


def wire(edit: Edit) -> WireEdit:
    """An edit as it goes over the wire."""
    return WireEdit(
        messages=(edit.start, edit.end),
        count=len(edit.replacement),
        mode=edit.effective_mode(),
        reason=edit.reason,
        policy=edit.policy,
        redact=edit.redact,
    )


@pytest.fixture
def conversation(tiny_service: ChatService) -> Conversation:
    """A fresh conversation with a fresh service."""
    return Conversation(tiny_service)


@pytest.fixture
def talk() -> type[Conversation]:
    """The class, for more than one conversation."""
    return Conversation


@pytest.fixture
def stub() -> Callable[..., Edit]:
    """An edit that puts a short message in another's place."""

    def make(index: int, view: Sequence[Message], text: str = "gone", **known: Any) -> Edit:
        known.setdefault("mode", Mode.AMORTIZE)
        return Edit(index, index + 1, ({**view[index], "content": text},), **known)

    return make


@pytest.fixture
def check_pool() -> Callable[..., None]:
    """Every reference is accounted for, and every slot stands where its offset says."""

    def check(service: ChatService, *runs: Any) -> None:
        pool = service.engine.pool
        sequences = [run.sequence for run in runs]
        sequences += [v.sequence for s in service.sessions for v in s.versions.values()]
        held = np.zeros(pool.num_slots, np.int32)
        for sequence in sequences:
            at = 0
            for segment in sequence.segments:
                slots = slice(*segment.extent)
                held[slots] += 1
                expected = np.arange(at, at + segment.length)
                assert np.array_equal(pool.positions[slots] + segment.offset, expected)
                at += segment.length
            assert at == len(sequence.tokens)
        for tree in service.engine.forest._trees.values():
            for node in tree:
                for start, end in node.extents:
                    held[start:end] += 1
        assert np.array_equal(pool.references, held)

    return check
