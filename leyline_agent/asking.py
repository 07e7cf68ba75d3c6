"""Having questions answered: beside the agent, one at a time, so often and so dear and no more.

What comes back is taken up when the next turn begins, and written to the journal before that turn
is: so a resumed session edits as this one did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline_agent.errors import AdapterError
from leyline_agent.journal import Journal
from leyline_agent.proposal import Skipped
from leyline_agent.question import Answered, Ask, AtOnce, Fulfil
from leyline_agent.state import State

__all__ = ["Asking", "by_litellm"]

CHARS_PER_TOKEN = 4
MAX_FAILURES = 6
"""In a row, after which a policy's questions are asked no more in this session."""
MAX_SECONDS = 300.0
TIMEOUT = 60.0
_SHOWN_CHARS = 300


@dataclass
class _Running:
    ask: Ask
    redactions: int
    started: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    found: Answered | Exception | None = None


@dataclass
class _Failures:
    """How often a policy's questions failed in a row, and for how many turns to wait."""

    count: int = 0
    wait: int = 0


class Asking:
    """Has a session's questions answered. Called by the session alone, which is locked meanwhile.

    Args:
        fulfil: asks the model; None for litellm.
        state: where answers are kept, and what they have cost.
        journal: where they are written.
    """

    def __init__(
        self, fulfil: Fulfil | AtOnce | None, state: State, journal: Journal | None
    ) -> None:
        self._at_once = isinstance(fulfil, AtOnce)
        self._fulfil = fulfil.fulfil if isinstance(fulfil, AtOnce) else fulfil or by_litellm
        self._state = state
        self._journal = journal
        self._running: _Running | None = None
        self._failures: dict[str, _Failures] = {}
        self._notes: list[Skipped] = []

    def collect(self) -> list[Skipped]:
        """Take up what was answered since; what was not, and why."""
        running = self._running
        if running is not None and running.done.is_set():
            self._running = None
            self._take(running, running.found)
        elif running is not None and time.monotonic() - running.started > MAX_SECONDS:
            self._running = None  # Its thread cannot be stopped; nobody waits for it.
            self._take(running, AdapterError(f"no answer after {MAX_SECONDS:.0f} s"))
        notes, self._notes = self._notes, []
        return notes

    def ask(self, asks: Sequence[Ask]) -> None:
        """Have those answered that are due; one at a time."""
        for ask in asks:
            if ask.key not in self._state.answers and self._running is None and self._is_due(ask):
                self._start(ask)

    def _is_due(self, ask: Ask) -> bool:
        failures = self._failures.setdefault(ask.policy, _Failures())
        failures.wait -= 1
        if failures.count >= MAX_FAILURES or failures.wait > 0:
            return False
        if self._state.spent.get(ask.policy, 0) < ask.budget:
            return True
        failures.count = MAX_FAILURES
        self._note(ask, "its budget is spent", f"{ask.budget} tokens; nothing more is asked")
        return False

    def _start(self, ask: Ask) -> None:
        running = self._running = _Running(ask, len(self._state.redacted))
        if self._at_once:
            self._answer(running)
            return
        threading.Thread(target=self._answer, args=(running,), daemon=True).start()

    def _answer(self, running: _Running) -> None:
        from leyline_agent.wrapping.scope import entered  # Which imports sessions.

        try:
            with entered(None):  # A model call of ours is no turn of the agent's.
                found = self._fulfil(running.ask)
            running.found = Answered(found) if isinstance(found, str) else found
        except Exception as error:  # Whatever a client raises: the reason there is no answer.
            running.found = error
        running.done.set()

    def _take(self, running: _Running, found: Answered | Exception | None) -> None:
        ask, state = running.ask, self._state
        if len(state.redacted) != running.redactions:
            return  # It may quote what is gone; the next question is asked without it.
        wrong = found if isinstance(found, Exception) else _unfit(ask, found)
        spent = _cost(ask, found if isinstance(found, Answered) else None)
        if isinstance(wrong, Exception) and not isinstance(found, Answered):
            spent = 0
        state.spend(ask.policy, spent)
        failures = self._failures.setdefault(ask.policy, _Failures())
        if wrong is None and isinstance(found, Answered):
            failures.count = failures.wait = 0
            state.answer(ask.key, found.text)
            self._write(ask, spent, found.text)
            return
        failures.count += 1
        failures.wait = 1 << (failures.count - 1)
        told = str(wrong)[:_SHOWN_CHARS]
        if failures.count == MAX_FAILURES:
            told += f"; {MAX_FAILURES} failures in a row: nothing more is asked in this session"
        self._note(ask, type(wrong).__name__, told)
        self._write(ask, spent, None)

    def _note(self, ask: Ask, kind: str, told: str) -> None:
        self._notes.append(Skipped(ask.policy, "", kind, f"its question has no answer: {told}"))

    def _write(self, ask: Ask, tokens: int, text: str | None) -> None:
        if self._journal:
            self._journal.write("answer", policy=ask.policy, key=ask.key, tokens=tokens, text=text)


def _unfit(ask: Ask, found: Any) -> AdapterError | None:
    """Why an answer is none."""
    if not isinstance(found, Answered) or not isinstance(found.text, str):
        return AdapterError(f"the answer is a {type(found).__name__}, not text")
    if not found.text.strip():
        return AdapterError("the answer is empty")
    if ask.max_chars and len(found.text) > ask.max_chars:
        return AdapterError(
            f"the answer has {len(found.text)} characters, more than {ask.max_chars}"
        )
    return None


def _cost(ask: Ask, found: Answered | None) -> int:
    """Tokens read and written, estimated where nobody counted."""
    if found is None:
        return 0
    if isinstance(found.tokens, int):
        return found.tokens
    read = sum(len(str(message.get("content"))) for message in ask.messages)
    return (read + len(str(found.text))) // CHARS_PER_TOKEN


def by_litellm(ask: Ask) -> Answered:
    """Ask through litellm, which knows providers and their keys from the environment.

    Raises:
        AdapterError: the question names no model, or the answer is no text or was cut short.
        Exception: whatever litellm raises.
    """
    if not ask.model:
        raise AdapterError(
            f"{ask.policy} names no model: write {ask.policy}:model=..., as litellm calls it, or "
            "pass fulfil=, a function that asks one"
        )
    completion = _litellm_completion()
    response = completion(
        model=ask.model,
        messages=list(ask.messages),
        max_tokens=ask.max_tokens,
        timeout=TIMEOUT,
        num_retries=0,
    )
    choice = response.choices[0]
    text = choice.message.content
    if not isinstance(text, str):
        raise AdapterError(f"{ask.model} answered without text ({choice.finish_reason})")
    if choice.finish_reason == "length":
        raise AdapterError(f"the answer was cut off at {ask.max_tokens} tokens")
    usage = getattr(response, "usage", None)
    return Answered(text, getattr(usage, "total_tokens", None))


def _litellm_completion() -> Callable[..., Any]:
    import litellm  # Takes seconds, in a thread that nobody waits for.

    return litellm.completion  # type: ignore[no-any-return]
