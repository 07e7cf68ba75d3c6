"""One recorded run in one arm, turn by turn, over an engine of its own.

A recorded reply counts as generated: it is put behind the prompt, and only prompts are prefilled.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from leyline_adapters.bundled.body import as_body
from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent.errors import EngineError, InvalidRequest
from leyline_agent.message import Message
from leyline_agent.policy import Policy
from leyline_agent.question import AtOnce
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.wire import ChatRequest
from leyline_agent.session import Session
from leyline_agent.turn import Turn
from leyline_agent.warning import LeylineWarning
from leyline_evals.replay.arms import Arm, policy_of
from leyline_evals.replay.fulfil import NOBODY, check_asks
from leyline_evals.replay.records import ArmRun, Ended, Failed, FidelityRow, TurnRow
from leyline_evals.replay.workload import Run

__all__ = ["Player"]


class Player:
    """One run in one arm, over a service of its own.

    Attributes:
        rows: the turns done.
        ended: why there will be no more.
        sent: the messages the last turn sent.
    """

    def __init__(
        self,
        run: Run,
        arm: Arm,
        policy: Policy,
        service: ChatService,
        fulfil: AtOnce = NOBODY,
    ) -> None:
        self.arm = arm
        self.rows: list[TurnRow] = []
        self.fidelity: list[FidelityRow] = []
        self.ended: Ended | None = None
        self.sent: Sequence[Message] = ()
        self._run = run
        self._service = service
        self._tools = list(run.recording.tools) or None
        self._fulfil = fulfil
        self._raised: dict[str, Counter[str]] = {}
        own = policy_of(arm, policy)
        self._session = Session(own, BundledAdapter(service), id="replay", fulfil=fulfil)

    def turn(self, index: int, *, score: bool = False) -> Tensor | None:
        """Play the reply at place `index`; with `score`, the logits that predicted its tokens.

        Where the engine cannot go on (the context is full), the arm ends.

        Raises:
            ReplayError: the policy wants a model asked, and nobody answers.
        """
        reply = self._run.recording.messages[index]
        turn, session_ms = self._begun(index)
        check_asks(turn, self._fulfil)
        try:
            request = self._request(turn.request)
            receipt, logits = self._service.recorded(request, reply, score=score)
        except EngineError as error:
            turn.fail(error)
            self.ended = Ended(kind=type(error).__name__, detail=str(error))
            return None
        turn.finish(_response(reply, receipt))
        self._note(turn)
        self.sent = turn.request["messages"]
        edits = len(turn.edits)
        ran = self._service.engine.model is not None
        self.rows.append(
            TurnRow.of(len(self.rows) + 1, receipt, edits=edits, session_ms=session_ms, ran=ran)
        )
        return logits

    def _begun(self, index: int) -> tuple[Turn, float]:
        """A turn, and the milliseconds its policies and history took."""
        # What a policy raised is told by the report, of every turn.
        with warnings.catch_warnings(action="ignore", category=LeylineWarning):
            started = time.perf_counter()
            turn = self._session.begin(self._run.prompt(index), self._tools)
            return turn, (time.perf_counter() - started) * 1e3

    def _note(self, turn: Turn) -> None:
        """Count the policies that raised; a part that stands in a pipeline twice counts once."""
        raised = {s.policy: f"{s.kind}: {s.detail}" for s in turn.skipped if not s.where}
        for policy, error in raised.items():
            self._raised.setdefault(policy, Counter())[error] += 1

    def _failed(self) -> list[Failed]:
        return [
            Failed(policy=policy, turns=errors.total(), error=errors.most_common(1)[0][0])
            for policy, errors in self._raised.items()
        ]

    def _request(self, keywords: dict[str, Any]) -> ChatRequest:
        body = as_body(keywords, stream=False)
        if not self.arm.declares:
            del body["leyline"]
        elif self._service.engine.model is None:
            body["leyline"]["view_digest"] = ""  # nobody else writes these messages; saves a tenth
        try:
            return ChatRequest.model_validate(body)
        except ValidationError as error:
            raise InvalidRequest(f"not a chat request: {error}") from error

    def result(self, turns: int) -> ArmRun:
        """What is written down of the run."""
        run = self._run
        return ArmRun(
            file=run.file,
            number=run.number,
            id=run.id,
            format=run.recording.format,
            arm=self.arm,
            messages=len(run.recording.messages),
            turns=turns,
            rows=self.rows,
            ended=self.ended,
            failed=self._failed(),
            fidelity=self.fidelity,
        )


def _response(reply: Message, receipt: Receipt) -> dict[str, Any]:
    """What the engine would have answered, had it said what was recorded."""
    choice = {"index": 0, "message": reply, "finish_reason": "stop"}
    return {"choices": [choice], "leyline": receipt.model_dump(mode="json")}
