"""Take secrets out of the context."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import ValidationInfo, field_validator

from leyline_agent.edit import Edit, Protected, protected_indices
from leyline_agent.message import Message
from leyline_agent.trajectory import Trajectory
from leyline_policies.correction import Correction

__all__ = ["Redact"]

# Forms that nothing but a secret has: a prefix of the issuer's own, and enough behind it.
_SECRETS = (
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    r"\bgh[pousr]_[A-Za-z0-9]{36,}\b",
    r"\bgithub_pat_[A-Za-z0-9_]{22,}\b",
    r"\bglpat-[A-Za-z0-9_-]{20,}",
    r"\bsk-(?=[\w-]*[0-9])(?=[\w-]*[A-Z])[A-Za-z0-9_-]{20,}",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"\bAIza[0-9A-Za-z_-]{35}",
    r"\bhf_[A-Za-z0-9]{30,}\b",
    r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
)
_PROTECTED: frozenset[Protected] = frozenset(("system", "task"))
_NAMING = frozenset({"role", "id", "tool_call_id", "type"})


class _Found(Exception):
    """A text holds a secret."""


class Redact(Correction):
    """Put a placeholder for every secret in results, in replies and in the arguments of calls.

    And in whatever stands beside them: thoughts, a provider's own fields. A signed thought goes.

    What is redacted is forgotten by the engine, scrubbed from its memory, kept in no archive, and a
    digest is all that the journal has of the message. A secret in a tool's output goes before it is
    ever sent. Redactions are carried out before all other edits, and wait for no better moment.

    Source: OWASP's list for LLM applications (LLM02:2025, sensitive information disclosure); the
    forms are those that GitHub's and GitLab's secret scanning publish. It knows no others: name
    yours. With a pattern for e-mail addresses on 8 recorded mini-swe-agent runs 1 edit, which costs
    nothing, as it is made before the text is sent: prompts 12,089, computed 172 thousand tokens.

    Attributes:
        placeholder: what is put there.
        patterns: regular expressions of your own; as text one with "+" stands in brackets.
        known: look for the keys and tokens of well-known issuers as well.
        everywhere: the system prompt and the task as well, which are the user's own words.
    """

    placeholder: str = "[redacted]"
    patterns: tuple[str, ...] = ()
    known: bool = True
    everywhere: bool = False

    @field_validator("patterns")
    @classmethod
    def _can_end(cls, patterns: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        placeholder = info.data.get("placeholder", "")
        for pattern in patterns:
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
            if compiled.search("") or compiled.search(placeholder):
                raise ValueError(f"{pattern!r} fits the empty text, or the placeholder")
        return patterns

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit for each message that holds a secret."""
        forms = (*(_SECRETS if self.known else ()), *self.patterns)
        if not forms:
            return
        pattern, check = _looked_for(forms)
        kept = {} if self.everywhere else protected_indices(trajectory.messages)
        for index, message in enumerate(trajectory.messages):
            if index not in kept and _holds(message, check):
                bare: Message = _without(message, pattern, self.placeholder)
                edit = Edit(index, index + 1, (bare,), reason="secret", redact=True)
                yield replace(edit, may_edit=_PROTECTED) if self.everywhere else edit


def _holds(message: Message, check: Callable[[str], None]) -> bool:
    try:
        _search(message, check)
    except _Found:
        return True
    return False


def _search(value: Any, check: Callable[[str], None]) -> None:
    """Check every text in a message but those that only name something.

    Runs over the whole view every turn; a call for each text would take twice as long.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            if part.__class__ is not str:
                _search(part, check)
            elif key not in _NAMING:
                check(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _search(part, check)
    elif isinstance(value, str):
        check(value)


def _without(value: Any, pattern: re.Pattern[str], placeholder: str) -> Any:
    """A message, or a part of one, with a placeholder for each secret."""
    if isinstance(value, str):
        return value if _is_data(value) else pattern.sub(lambda _: placeholder, value)
    if isinstance(value, dict):
        return {
            key: part if key in _NAMING else _without(part, pattern, placeholder)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        pairs = [(part, _without(part, pattern, placeholder)) for part in value]
        return [bare for part, bare in pairs if bare == part or not _is_signed(part)]
    return value


def _is_signed(part: Any) -> bool:
    """Whether it is a thought that its provider takes back word for word, or not at all."""
    return isinstance(part, dict) and bool(part.get("signature"))


def _is_data(text: str) -> bool:
    return text.startswith("data:")


@lru_cache(maxsize=8)
def _looked_for(forms: tuple[str, ...]) -> tuple[re.Pattern[str], Callable[[str], None]]:
    """One pattern for all forms, and a check that raises where a text has it.

    Texts that have none are remembered: a turn costs what is new in it. What raises is not, so that
    no secret is kept here.
    """
    pattern = re.compile("|".join(f"(?:{form})" for form in forms))

    @lru_cache(maxsize=4096)
    def check(text: str) -> None:
        if not _is_data(text) and pattern.search(text):
            raise _Found

    return pattern, check
