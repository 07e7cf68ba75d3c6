"""The model of one episode: a session of one arm in front of it, its limits and its figures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from leyline_agent import response as reading
from leyline_agent.adapter import Request
from leyline_agent.errors import ContextOverflow, LeylineError
from leyline_agent.message import Message, digest
from leyline_agent.session import Session
from leyline_agent.turn import Turn
from leyline_evals.solve.driver import Limits, StepRecord
from leyline_evals.solve.errors import Interrupted, LimitReached, ModelFailed
from leyline_evals.solve.tally import Heard, Tally

__all__ = ["Call", "EpisodeModel", "Heard"]


Call = Callable[[Request], Heard]
"""Makes one call: the keyword arguments of a chat completion in, its answer out."""


class EpisodeModel:
    """A model behind a session, for one episode. Called by one thread.

    Args:
        session: the arm's: its policies, its adapter, its journal.
        call: makes the calls.
        limits: what the episode may take.
        sampling: keyword arguments of every call; the seed among them.
        is_over: whether the sitting ends now.
        now: the clock, in seconds.
    """

    def __init__(
        self,
        session: Session,
        call: Call,
        limits: Limits,
        sampling: Mapping[str, Any] | None = None,
        is_over: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.session = session
        self._call = call
        self._limits = limits
        self._sampling = dict(sampling or {})
        self._is_over = is_over
        self._now = now
        self._began = now()
        self._steps = 0
        self._generated = 0
        self._same = 0
        self._last: str | None = None
        self._pending: StepRecord | None = None
        self._raised: dict[str, Counter[str]] = {}

    def __call__(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None = None
    ) -> Message:
        """The assistant message in answer to the conversation.

        Raises:
            LimitReached: one of `limits`, or the model's context.
            ModelFailed: no answer.
            Interrupted: the sitting ends.
        """
        self._check()
        started, known = self._now(), len(self.session.receipts)
        recalls = self.session.stats().recalls
        turn = self.session.begin(messages, tools, **self._asked())
        self._note(turn)
        tally = Tally(edits=len(turn.edits))
        answer = self._answered(turn, tally)
        self._steps += 1
        ended = self._now()
        tally.session_seconds = ended - started - tally.model_seconds
        receipts = self.session.receipts[known:]
        recalls = self.session.stats().recalls - recalls
        self._pending = tally.record(self._steps, ended - self._began, receipts, recalls)
        self._generated += self._pending.completion
        self._notice(answer)
        return answer

    @property
    def pending(self) -> bool:
        """Whether a reply's record has not been taken."""
        return self._pending is not None

    @property
    def failed(self) -> dict[str, int]:
        """In how many turns a policy raised, by "its name: what it raised most often"."""
        return {
            f"{policy}: {errors.most_common(1)[0][0]}": errors.total()
            for policy, errors in self._raised.items()
        }

    def step(
        self,
        action: str = "",
        tool_seconds: float = 0.0,
        reads: Sequence[str] = (),
        writes: Sequence[str] = (),
    ) -> StepRecord:
        """The last reply's record, with what the driver knows of it. Once a reply.

        Raises:
            LeylineError: there is none, or it was taken already.
        """
        if self._pending is None:
            raise LeylineError("no reply to record: call the model first, and step() once a reply")
        told = {"action": action, "tool_seconds": tool_seconds}
        made = self._pending.model_copy(
            update={**told, "reads": tuple(reads), "writes": tuple(writes)}
        )
        self._pending = None
        return made

    def _note(self, turn: Turn) -> None:
        """Count the policies that raised; a part that stands in a pipeline twice counts once."""
        raised = {s.policy: f"{s.kind}: {s.detail}" for s in turn.skipped if not s.where}
        for policy, error in raised.items():
            self._raised.setdefault(policy, Counter())[error] += 1

    def _asked(self) -> dict[str, Any]:
        """The keyword arguments of the next call; each step draws from a seed of its own."""
        asked = {**self._sampling, "max_tokens": self._limits.reply_tokens}
        if "seed" in asked:
            asked["seed"] += self._steps
        return asked

    def _check(self) -> None:
        """Raise where no further reply may be asked for."""
        if self._is_over():
            raise Interrupted("the sitting ends; the episode is run again in the next one")
        limits, spent = self._limits, self._now() - self._began
        if self._steps >= limits.steps:
            raise LimitReached("steps", f"{limits.steps} steps are over")
        if spent >= limits.seconds:
            raise LimitReached("seconds", f"{limits.seconds:g} seconds are over")
        if limits.tokens is not None and self._generated >= limits.tokens:
            raise LimitReached("tokens", f"{self._generated} tokens were generated")
        if limits.repeats and self._same >= limits.repeats:
            raise LimitReached("repeats", f"the same reply came {self._same} times in a row")

    def _answered(self, turn: Turn, tally: Tally) -> Message:
        """The reply of a turn, asked for again as long as it is not for the driver."""
        heard = self._heard(turn, tally)
        try:
            while turn.advance(heard.response):
                heard = self._heard(turn, tally)
            turn.finish(heard.response)
        except OSError as error:
            raise ModelFailed(f"the episode's journal cannot be written: {error}") from error
        answer = reading.reply(turn.delivered(heard.response))
        if answer is None:
            raise ModelFailed(f"the answer is no chat completion: {heard.response!r:.200}")
        return answer

    def _heard(self, turn: Turn, tally: Tally) -> Heard:
        """One call; the turn fails with it."""
        started = self._now()
        try:
            heard = self._call(turn.request)
        except ContextOverflow as error:
            turn.fail(error)
            raise LimitReached("context", str(error)) from error
        except Exception as error:
            turn.fail(error)
            raise ModelFailed(f"{type(error).__name__}: {error}") from error
        except BaseException as error:
            turn.fail(error)
            raise
        tally.heard.append(heard)
        tally.model_seconds += self._now() - started
        return heard

    def _notice(self, answer: Message) -> None:
        """Count replies that say the same; calls' ids differ by themselves."""
        calls = [call.get("function") for call in answer.get("tool_calls") or ()]
        said = digest({"role": "assistant", "content": f"{answer.get('content')} {calls}"})
        self._same = self._same + 1 if said == self._last else 1
        self._last = said
