"""Time to the first token when edits are made with the call, and while the tool runs before it.

    python benchmarks/timing.py [--rounds 6] [--out benchmarks/results/timing.json]

An agent's outputs are stubbed once four replies stand behind them, in two modes. With `now` the
edit goes with the call behind the tool's result; ahead it is made by a thread from the reply on,
while a tool of half a second or of two runs. The views are the same in all arms. Time is taken from
`begin`, so with what it waits for, to the first token. An arm's background work never meets another
arm's measurement.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from common import save, spread

from leyline_adapters.bundled.body import as_body
from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent.directive import Mode
from leyline_agent.edit import Edit
from leyline_agent.policy import Policy
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.models.embedded import DEFAULT
from leyline_agent.serving.wire import ChatRequest
from leyline_agent.session import Session
from leyline_agent.testing import tool_call
from leyline_agent.trajectory import Trajectory
from leyline_agent.turn import Turn
from leyline_evals.replay.engines import Engines

Message = dict[str, Any]

KEEP = 4
TOOLS = (0.5, 2.0)
WORDS = "def return import error value path test line assert result self index".split()


class Aged(Policy):
    """Stub a result once `keep` replies stand behind it: due when a reply has come."""

    keep: int = KEEP

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        """One edit a reply."""
        replies = [i for i, m in enumerate(trajectory.messages) if m["role"] == "assistant"]
        last = replies[-self.keep] if len(replies) >= self.keep else 0
        for result in trajectory.tool_results:
            if result.index < last and len(result.content) > 40:
                yield result.replace("(old output)")


def steps(count: int, words: int, seed: int = 0) -> Iterator[tuple[Message, Message]]:
    """Calls of a tool, each with its output of so many words, about as many tokens."""
    rng = random.Random(seed)
    for number in range(count):
        reply = tool_call("bash", id=f"call_{number}", content="I look.", command=f"cat {number}")
        output = " ".join(rng.choice(WORDS) for _ in range(words))
        yield reply, {"role": "tool", "tool_call_id": f"call_{number}", "content": output}


@dataclass
class Arm:
    """An agent in one mode; `tool` is how long its tools run, None to edit with the call."""

    service: ChatService
    mode: Mode
    tool: float | None
    messages: list[Message] = field(
        default_factory=lambda: [{"role": "user", "content": "Make the tests pass."}]
    )
    waiting: tuple[Turn, dict[str, Any]] | None = None
    milliseconds: list[float] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    def __post_init__(self) -> None:
        timing = "now" if self.tool is None else "auto"
        adapter = BundledAdapter(self.service)
        self.session = Session(Aged(mode=self.mode), adapter, timing=timing)

    @property
    def name(self) -> str:
        """The mode, and when."""
        when = "now" if self.tool is None else f"ahead, tool of {self.tool:g} s"
        return f"{self.mode.value}, {when}"

    def step(self, reply: Message, result: Message) -> None:
        """Answer the last call, run its tool, and time the next one to its first token."""
        if self.waiting is not None:
            turn, answer = self.waiting
            turn.finish(answer)
            time.sleep(self.tool or 0.0)
        started = time.perf_counter()
        turn = self.session.begin(self.messages)
        begun = (time.perf_counter() - started) * 1e3
        request = ChatRequest.model_validate(as_body(turn.request, stream=False))
        receipt, _ = self.service.recorded(request, reply)
        assert receipt.ttft_ms is not None
        self.milliseconds.append(begun + receipt.ttft_ms)
        self.receipts.append(receipt)
        self._check(turn, receipt)
        self.waiting = turn, _answer(reply, receipt)
        self.messages += [reply, result]

    def _check(self, turn: Turn, receipt: Receipt) -> None:
        """That the edit was made where this arm makes it, and as asked."""
        if len(self.receipts) <= KEEP + 1:
            return
        if self.tool is None:
            assert len(turn.edits) == 1, self.name
            (told,) = receipt.edits
        else:
            assert turn.edits == (), self.name
            (told,) = self.session.receipts[-1].edits
            assert self.session.receipts[-1].version == turn.commit.base_version, self.name
        assert told.mode_used is self.mode, told


def _answer(reply: Message, receipt: Receipt) -> dict[str, Any]:
    choice = {"index": 0, "message": reply, "finish_reason": "tool_calls"}
    return {"choices": [choice], "leyline": receipt.model_dump(mode="json")}


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT)
    parser.add_argument("--words", type=int, default=300, help="of a tool's output")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out")
    options = parser.parse_args()

    engines = Engines.load(options.model, tokens_only=False)
    engines.warm_up()
    arms = [
        Arm(engines.fresh(), mode, tool)
        for mode in (Mode.FORGET, Mode.REPAIR)
        for tool in (None, *TOOLS)
    ]
    skipped = KEEP + 2
    for number, (reply, result) in enumerate(steps(skipped + options.rounds, options.words)):
        by = number % len(arms)
        for arm in [*arms[by:], *arms[:by]]:
            arm.step(reply, result)
        print(f"turn {number + 1} of {skipped + options.rounds}", file=sys.stderr, flush=True)
        prompts = {arm.receipts[-1].prompt for arm in arms}
        assert len(prompts) == 1, f"the views differ: {prompts}"
    figures = {}
    for arm in arms:
        measured = arm.receipts[skipped:]
        figures[arm.name] = {
            "ttft_ms": spread(arm.milliseconds[skipped:]),
            "prompt": measured[-1].prompt,
            "computed": round(sum(r.compute for r in measured) / len(measured)),
        }
        print(arm.name, figures[arm.name], flush=True)
    about = {"model": options.model, "dtype": engines.dtype, "words": options.words}
    save(options.out, "timing", {**about, "threads": torch.get_num_threads(), "arms": figures})


if __name__ == "__main__":
    main()
