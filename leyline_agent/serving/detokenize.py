"""Detokenizing: text from a reply's tokens while they are sampled, up to a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leyline_agent.errors import InvalidRequest

__all__ = ["Detokenizer", "overlap"]

_REPLACEMENT = "\ufffd"
# A character has at most four bytes: what is not text after so many tokens never will be.
_MAX_WAITING = 64


def overlap(text: str, tag: str) -> int:
    """How many characters at the end of `text` are the beginning of `tag`, short of all of it."""
    sizes = range(min(len(text), len(tag) - 1), 0, -1)
    return next((size for size in sizes if tag.startswith(text[-size:])), 0)


class Detokenizer:
    """Turns one reply's tokens into text, token by token. Special tokens are left out.

    Text is given out when it cannot change any more: whole characters only, and nothing that may
    be the beginning of a stop string. What comes out is the decoded reply, cut before the stop
    string that is complete first.

    Args:
        tokenizer: a Hugging Face tokenizer.
        stop: strings that end the reply.

    Attributes:
        stopped: the stop string found; None so far. Behind it nothing comes out.

    Raises:
        InvalidRequest: a stop string is empty.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        if not all(stop):
            raise InvalidRequest("a stop string is empty; leave it out")
        self.stopped: str | None = None
        self._tokenizer = tokenizer
        self._stop = tuple(stop)
        self._ids: list[int] = []  # the tokens given out last, which a decoder may look back on,
        self._num_done = 0  # this many, and those that wait
        self._held = ""  # text that may begin a stop string

    def feed(self, token: int) -> str:
        """The text that `token` makes certain."""
        self._ids.append(token)
        return self._give_out(self._decoded(final=False), final=False)

    def finish(self) -> str:
        """The rest of the text when the reply has ended."""
        return self._give_out(self._decoded(final=True), final=True)

    def _decoded(self, final: bool) -> str:
        """The text of the waiting tokens; "" while it may end inside a character."""
        before = self._decode(self._ids[: self._num_done])
        text = self._decode(self._ids)
        open_end = text.endswith(_REPLACEMENT) and len(self._ids) - self._num_done < _MAX_WAITING
        if (open_end and not final) or len(text) <= len(before):
            return ""
        self._ids = self._ids[self._num_done :]
        self._num_done = len(self._ids)
        return text[len(before) :]

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _give_out(self, text: str, final: bool) -> str:
        if self.stopped is not None:
            return ""
        text, self._held = self._held + text, ""
        found = [(at + len(stop), at, stop) for stop in self._stop if (at := text.find(stop)) >= 0]
        if found:
            _, at, self.stopped = min(found)
            return text[:at]
        held = 0 if final else max((overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]
