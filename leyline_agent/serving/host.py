"""Hosts: what stands behind the chat service, whoever computes: the engine here, or llama.cpp.

A host is used by one thread at a time: whoever is not alone wraps each call in `exclusive()`.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from leyline_agent.errors import ContextOverflow, OutOfSlots
from leyline_agent.serving.run import Run
from leyline_agent.serving.work import Cached, Logits

if TYPE_CHECKING:
    from leyline_agent.serving.prompt import Prompt
    from leyline_agent.serving.sessions import EngineSession
    from leyline_agent.serving.wire import SamplingRequest

__all__ = ["Batching", "Host", "LogProbs", "TokenSampler"]

T = TypeVar("T")


class Batching(Protocol):
    """What the scheduler must know."""

    @property
    def chunk(self) -> int:
        """Compute at most this many tokens a forward pass, of all sequences together."""
        ...

    @property
    def max_batch(self) -> int:
        """Continue at most this many sequences at once."""
        ...


class LogProbs(Protocol):
    """Log-probabilities at one position: the chosen token's, and the likeliest (token, logprob)."""

    @property
    def chosen(self) -> float:
        """The chosen token's."""
        ...

    @property
    def top(self) -> tuple[tuple[int, float], ...]:
        """The likeliest tokens, each with its own."""
        ...


class TokenSampler(Protocol):
    """Chooses tokens for one request."""

    def sample(self, logits: Logits) -> int:
        """The next token, from logits of shape [vocab]."""
        ...

    def log_probs(self, logits: Logits, token: int, k: int) -> LogProbs:
        """What the model gave `token` and its `k` likeliest tokens."""
        ...


class Host(ABC):
    """Runs prompts with directives, and continues them.

    Args:
        config: how much at once.
        max_len: the model's context length.

    Attributes:
        model: the model; None where tokens are only counted.
        reclaimers: called with a number of tokens to give KV up for.
    """

    model: Any = None
    config: Batching

    def __init__(self, config: Batching, max_len: int) -> None:
        self.config = config
        self.max_len = max_len
        self.lock = threading.Lock()
        self.reclaimers: list[Callable[[int], None]] = []
        self._abandoned: deque[Run] = deque()

    @property
    @abstractmethod
    def vocab_size(self) -> int | None:
        """How many tokens the model knows; None where no model runs."""

    @abstractmethod
    def open(self, prompt: Prompt) -> Run:
        """Splice only: a run whose fresh tokens `Run.prefill` computes. Raises as `start`."""

    @abstractmethod
    def compute(self, batch: Sequence[tuple[Run, int]]) -> None:
        """Compute what is pending of each run, at most so many tokens, all in one forward pass."""

    @abstractmethod
    def keep(self, run: Run) -> None:
        """A run has ended whole: what is canonical of it may serve its tenant."""

    @abstractmethod
    def with_room(self, tokens: int, action: Callable[[], T]) -> T:
        """Run an allocation of about `tokens` tokens; when all is full, evict and retry."""

    @abstractmethod
    def freed(self, tokens: int) -> bool:
        """Give up idle cached prefixes for so many tokens; whether there is room now."""

    @abstractmethod
    def drop(self, tenant: str) -> None:
        """Give up the idle cached prefixes of a tenant who comes no more."""

    @abstractmethod
    def scrub(self, session: EngineSession, keep: Cached) -> int:
        """Give up all a session had computed but what `keep` consists of.

        Returns:
            How many tokens' KV is not gone.
        """

    @abstractmethod
    def sampler(self, request: SamplingRequest) -> TokenSampler:
        """A request's sampler; OpenAI's defaults where the request says nothing."""

    @abstractmethod
    def joined(self, rows: Sequence[Logits]) -> Logits:
        """Logits one behind the other."""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the engine. Not re-entrant."""
        with self.lock:
            self._drop_abandoned()
            yield

    def abandon(self, run: Run) -> None:
        """End a run nobody wants any more, at once or as soon as the engine is free.

        For the end of a generator, which the garbage collector may bring about on any thread,
        even on one that holds the engine.
        """
        self._abandoned.append(run)
        if self.lock.acquire(blocking=False):
            try:
                self._drop_abandoned()
            finally:
                self.lock.release()

    def _drop_abandoned(self) -> None:
        while self._abandoned:
            self._abandoned.popleft().abandon()

    def start(self, prompt: Prompt) -> Run:
        """Splice, prefill and repair: everything up to the prompt's last logits.

        Raises:
            ContextOverflow: the prompt is longer than the model's context.
            OutOfSlots: it does not fit the pool even after evicting everything idle.
        """
        run = self.open(prompt)
        try:
            while len(run.pending):
                run.prefill()
        except BaseException:
            run.abandon()
            raise
        return run

    def check_length(self, length: int) -> None:
        """Raise ContextOverflow when `length` tokens are more than the model's context."""
        if length > self.max_len:
            raise ContextOverflow(
                f"{length} tokens do not fit the model's context of {self.max_len}; shorten the "
                "conversation, or let a policy do it"
            )

    def when_room(self, action: Callable[[], T]) -> Generator[OutOfSlots, None, T]:
        """What an allocation returns, holding the engine; yields what it lacks until it has it."""
        while True:
            with self.exclusive():
                try:
                    return action()
                except OutOfSlots as error:
                    lacking = error
            yield lacking
