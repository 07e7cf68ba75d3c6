"""A harness in a few lines: it keeps a history, calls an adapter, and may declare an edit."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from leyline_agent.adapter import CallingAdapter
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.message import Message
from leyline_agent.receipt import Receipt
from leyline_agent.session import Session
from leyline_agent.turn import Turn

__all__ = ["Talk", "assembled", "likeliest", "long_text", "text_of"]

_WORDS = (
    "the error was found in line of file test when a list is read again and then written by code "
    "that no one knows so we look at the folder run what is there fix it and say why it failed"
).split()


def long_text(words: int, seed: int) -> str:
    """Ordinary words in an order of their own."""
    rng = random.Random(seed)
    return " ".join(rng.choices(_WORDS, k=words))


class Talk:
    """One conversation with the model behind an adapter.

    Args:
        adapter: makes the calls.
        options: keyword arguments of every call.
        messages: what was said already.

    Attributes:
        session: the conversation's.
        messages: its history.
        answer: the last completion.
    """

    def __init__(
        self,
        adapter: CallingAdapter,
        options: Mapping[str, Any],
        messages: Sequence[Message] = (),
    ) -> None:
        self.session = Session(adapter=adapter)
        self.messages: list[Message] = list(messages)
        self.answer: dict[str, Any] = {}
        self._adapter = adapter
        self._options = dict(options)

    @property
    def reply(self) -> Message:
        """The model's last reply."""
        found: Message = self.answer["choices"][0]["message"]
        return found

    @property
    def view(self) -> list[Message]:
        """What the model saw last: the prompt, without its reply."""
        return self.session.view[:-1]

    def say(self, text: str, role: str = "user") -> None:
        """Put a message behind the others."""
        self.messages.append({"role": role, "content": text})

    def stub(self, index: int, mode: Mode, *, redact: bool = False) -> Edit:
        """An edit that puts one short message in the place of another of the view."""
        role = (self.session.view or self.messages)[index]["role"]
        stub = {"role": role, "content": "[removed]"}
        return Edit(index, index + 1, (stub,), mode, reason="conformance", redact=redact)

    def begin(self, text: str | None = None, edit: Edit | None = None) -> Turn:
        """Open a turn, with a new message of the user's and an edit of the view before it."""
        if text is not None:
            self.say(text)
        if edit is not None:
            self.session.edit(edit)
        return self.session.begin(self.messages, **self._options)

    def finish(self, turn: Turn, answer: Mapping[str, Any]) -> Receipt:
        """Take an answer into the history."""
        self.answer = dict(answer)
        receipt = turn.finish(self.answer)
        self.messages.append(dict(self.reply))
        return receipt

    def turn(
        self, text: str | None = None, edit: Edit | None = None, *, stream: bool = False
    ) -> Receipt:
        """A whole turn; its receipt."""
        turn = self.begin(text, edit)
        if stream:
            return self.finish(turn, assembled(list(self._adapter.stream(turn.request))))
        return self.finish(turn, self._adapter.complete(turn.request))


def assembled(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The completion that the chunks of a text make."""
    text = ""
    likely: list[Any] = []
    for chunk in chunks:
        for choice in chunk.get("choices") or ():
            text += (choice.get("delta") or {}).get("content") or ""
            likely += (choice.get("logprobs") or {}).get("content") or ()
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    if likely:
        choice["logprobs"] = {"content": likely}
    last = {key: chunk[key] for chunk in chunks for key in ("usage", "leyline") if chunk.get(key)}
    return {"choices": [choice], **last}


def text_of(answer: Mapping[str, Any]) -> str:
    """The text of a completion's first choice."""
    return str(answer["choices"][0]["message"]["content"])


def likeliest(answer: Mapping[str, Any]) -> dict[str, float]:
    """The log probabilities of the likeliest first tokens of a completion's first choice."""
    content = (answer["choices"][0].get("logprobs") or {}).get("content") or [{}]
    return {one["token"]: one["logprob"] for one in content[0].get("top_logprobs") or ()}
