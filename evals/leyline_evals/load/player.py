"""Playing many conversations at once against one engine, in one arm.

At most `concurrency` calls are under way. After each, its conversation goes to the end of the line,
as an agent whose tool runs meanwhile: all conversations grow side by side.
"""

from __future__ import annotations

import asyncio
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from leyline_agent.errors import LeylineError
from leyline_agent.message import Message
from leyline_agent.policy import Policy
from leyline_agent.question import AtOnce
from leyline_agent.receipt import Receipt
from leyline_agent.session import Session
from leyline_agent.turn import Turn
from leyline_agent.warning import LeylineWarning
from leyline_evals.load.engine import Answer, Target
from leyline_evals.replay.arms import Arm, policy_of
from leyline_evals.replay.fulfil import NOBODY, check_asks
from leyline_evals.replay.records import ArmRun, Ended, Failed, TurnRow
from leyline_evals.replay.workload import Run

__all__ = ["Played", "play"]


@dataclass(frozen=True)
class Played:
    """One arm at one concurrency: its conversations, and how long they took together."""

    runs: list[ArmRun]
    seconds: float


def play(
    runs: Sequence[Run],
    arm: Arm,
    policy: Policy,
    target: Target,
    *,
    concurrency: int,
    mark: str,
    fulfil: AtOnce = NOBODY,
    max_turns: int | None = None,
    on_turn: Callable[[], None] = lambda: None,
) -> Played:
    """Play every conversation to its end.

    Args:
        runs: the conversations.
        arm: how they are served.
        policy: what edits them.
        target: the engine they share.
        concurrency: calls under way at most.
        fulfil: answers what the policy asks.
        mark: stands in front of every conversation: nothing that was cached before serves them.
        max_turns: calls of each conversation at most.
        on_turn: is called after every call.

    Raises:
        ReplayError: the policy wants a model asked, and nobody answers.
    """
    talks = [_Talk(run, arm, policy, target, fulfil, mark, max_turns) for run in runs]
    started = time.perf_counter()
    asyncio.run(_play(talks, concurrency, on_turn))
    seconds = time.perf_counter() - started
    return Played([talk.result() for talk in talks], seconds)


async def _play(talks: Sequence[_Talk], concurrency: int, on_turn: Callable[[], None]) -> None:
    line = deque(talks)

    async def worker() -> None:
        while line:
            talk = line.popleft()
            if await talk.step():
                line.append(talk)
                on_turn()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(talks))):
                group.create_task(worker())
    except ExceptionGroup as found:
        raise found.exceptions[0] from None  # the first to fail stopped the others


@dataclass
class _Talk:
    """One conversation."""

    run: Run
    arm: Arm
    policy: Policy
    target: Target
    fulfil: AtOnce
    mark: str
    max_turns: int | None
    rows: list[TurnRow] = field(default_factory=list)
    ended: Ended | None = None
    raised: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.session = Session(
            policy_of(self.arm, self.policy),
            self.target.adapter,
            id=f"{self.mark}-{self.run.id}",
            fulfil=self.fulfil,
        )

    async def step(self) -> bool:
        """Make the next call; False when there is none."""
        places = self.run.turns[: self.max_turns]
        if self.ended is not None or len(self.rows) == len(places):
            return False
        index = places[len(self.rows)]
        reply = self.run.recording.messages[index]
        turn, session_ms = self._begun(index)
        check_asks(turn, self.fulfil)
        try:
            answer = await self.target.call(turn.request, reply)
        except LeylineError as error:
            turn.fail(error)
            self.ended = Ended(kind=type(error).__name__, detail=str(error))
            return False
        self._done(turn, reply, answer, session_ms)
        return True

    def _begun(self, index: int) -> tuple[Turn, float]:
        started = time.perf_counter()
        prompt = _marked(self.run.prompt(index), self.mark)
        with warnings.catch_warnings(action="ignore", category=LeylineWarning):  # told by `raised`
            turn = self.session.begin(prompt, list(self.run.recording.tools) or None)
        return turn, (time.perf_counter() - started) * 1e3

    def _done(self, turn: Turn, reply: Message, answer: Answer, session_ms: float) -> None:
        # The conversation goes on as it was recorded, whatever the model would have said.
        choice = {"index": 0, "message": reply, "finish_reason": "stop"}
        receipt: Receipt = turn.finish({**answer.response, "choices": [choice]})
        for one in turn.skipped:
            if not one.where:
                self.raised.setdefault(one.policy, Counter())[f"{one.kind}: {one.detail}"] += 1
        row = TurnRow.of(
            len(self.rows) + 1, receipt, edits=len(turn.edits), session_ms=session_ms, ran=False
        )
        ttft = None if answer.ttft_ms is None else round(answer.ttft_ms, 3)
        self.rows.append(row.model_copy(update={"ttft_ms": ttft}))

    def result(self) -> ArmRun:
        """What is written down of the conversation."""
        return ArmRun(
            file=self.run.file,
            number=self.run.number,
            id=self.run.id,
            format=self.run.recording.format,
            arm=self.arm,
            messages=len(self.run.recording.messages),
            turns=len(self.run.turns[: self.max_turns]),
            rows=self.rows,
            ended=self.ended,
            failed=[
                Failed(policy=policy, turns=kinds.total(), error=kinds.most_common(1)[0][0])
                for policy, kinds in self.raised.items()
            ],
        )


def _marked(messages: list[Message], mark: str) -> list[Message]:
    """The mark in front of a text, which every chat template keeps, unlike a message of its own."""
    for at, message in enumerate(messages):
        if isinstance(message.get("content"), str):
            marked = {**message, "content": f"{mark}\n{message['content']}"}
            return [*messages[:at], marked, *messages[at + 1 :]]
    return messages
