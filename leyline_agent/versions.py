"""Versions of a session, as an engine remembers them: a number names one commit and no other."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from leyline_agent.errors import StaleSession
from leyline_agent.message import Message, canonical

__all__ = ["Acknowledged", "Versions", "is_of"]


class Acknowledged(Protocol):
    """What an engine remembers of a commit that it carried out."""

    @property
    def base(self) -> int:
        """The version it was made from."""
        ...

    @property
    def digest(self) -> str:
        """The view digest the client sent, "" when none."""
        ...

    @property
    def messages(self) -> Sequence[Message] | None:
        """The view with its reply; None where it was made of tokens."""
        ...


def is_of(
    version: Acknowledged, base: int, digest: str, messages: Sequence[Message] | None
) -> bool:
    """Whether a commit made a version: by digests where both have one, else by the messages."""
    if version.base != base:
        return False
    if version.digest and digest:
        return version.digest == digest
    held = version.messages
    if held is None or messages is None or not 0 <= len(held) - len(messages) <= 1:
        return False  # one more: the reply
    return all(canonical(a) == canonical(b) for a, b in zip(held, messages, strict=False))


V = TypeVar("V", bound=Acknowledged)


class Versions(Generic[V]):
    """What sessions of every engine have in common.

    Attributes:
        id: the session's.
        versions: its newest versions by number, in the order of their commits.
    """

    id: str
    versions: OrderedDict[int, V]

    @property
    def newest(self) -> V | None:
        """The version committed last."""
        return next(reversed(self.versions.values()), None)

    def made(
        self, number: int, base: int, digest: str, messages: Sequence[Message] | None = None
    ) -> V | None:
        """Version `number`, if it is this very commit: the same again is a retry, and acts once.

        Raises:
            StaleSession: another commit has the number, and this one is no new beginning.
        """
        held = self.versions.get(number)
        if held is None or is_of(held, base, digest, messages):
            return held
        if base:
            raise self.taken(number)
        return None

    def has_other(self, number: int, made: V) -> bool:
        """Whether another commit than the one that `made` is has the number."""
        held = self.versions.get(number)
        if held is None:
            return False
        both = held.digest and made.digest
        return held.base != made.base or bool(both and held.digest != made.digest)

    def taken(self, number: int) -> StaleSession:
        """The error of a commit whose number another has."""
        return StaleSession(
            f"version {number} of session {self.id!r} was made by another commit; a version's "
            "number is never used again: count on, or begin a session of another id"
        )
