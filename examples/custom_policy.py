"""Four ways to write a policy, on a recorded run.

python examples/custom_policy.py
leyline inspect RUN --policy examples/custom_policy.py:DropListings:after=2 --why
leyline replay RUN --tokens-only --fulfil extract --policy examples/custom_policy.py:describe_old
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

import leyline_agent as leyline
from leyline_agent.policy import as_policy
from leyline_agent.question import at_once
from leyline_agent.readers import read
from leyline_agent.testing import extract

RUN = Path(__file__).resolve().parents[1] / "evals/leyline_evals/demo/recording.json"


class DropListings(leyline.Policy):
    """A class: its options are pydantic fields. Stub what `ls` and `find` printed."""

    after: int = Field(3, ge=1)

    def edits(self, trajectory: leyline.Trajectory) -> Iterator[leyline.Edit]:
        """One edit for each listing that `after` later results stand behind."""
        for result in trajectory.tool_results[: -self.after]:
            command = str(result.call.arguments.get("command", "")) if result.call else ""
            if command.startswith(("ls", "find")) and len(result.content) > 20:
                yield result.replace("[a listing]", reason="listing")


@leyline.policy
def cap_lines(trajectory: leyline.Trajectory) -> Iterator[leyline.Edit]:
    """A generator function: no result of more than 30 lines, once the model has seen it."""
    for result in trajectory.tool_results[:-1]:
        lines = result.content.splitlines()
        if len(lines) > 30:
            yield result.replace("\n".join([*lines[:29], "[more]"]), mode=leyline.Mode.AMORTIZE)


@leyline.transform
def mask_old(messages: list[dict[str, Any]], turn: int) -> list[dict[str, Any]]:
    """A transform: it changes a copy of the messages, and the difference becomes edits."""
    for message in messages[:-8]:
        if message["role"] == "tool":
            message["content"] = "[old output]"
    return messages


@leyline.policy
def describe_old(trajectory: leyline.Trajectory) -> Iterator[leyline.Edit | leyline.Ask]:
    """With a question: a model says what the oldest long output was, and that takes its place."""
    for result in trajectory.tool_results[:-3]:
        if len(result.content) > 1000:
            key = hashlib.sha256(result.content.encode()).hexdigest()
            if key in trajectory.answers:
                yield result.replace(f"[it said: {trajectory.answers[key]}]", reason="described")
            else:
                words = {"role": "user", "content": f"In one line, what is this?\n{result.content}"}
                yield leyline.Ask(key, (words,), model="openai/gpt-5-mini", max_chars=500)
            return


def main() -> None:
    """Run each on the recording, and say what it cut."""
    (run,) = read(RUN)
    for given in (DropListings(after=2), cap_lines, mask_old, describe_old, "keep_last:n=5"):
        policy = as_policy(given)
        # `extract` stands in for a model; without it litellm would ask the one that is named.
        session = leyline.Session(policy, fulfil=at_once(extract))
        before = after = 0
        for place, message in enumerate(run.messages):
            if message["role"] == "assistant" and place:
                turn = session.begin(run.messages[:place])
                before += turn.trajectory.original.tokens()
                after += leyline.Trajectory(turn.request["messages"]).tokens()
                turn.finish({"choices": [{"message": message}]})
        print(f"{policy}: {len(session.edits)} edits, prompts {before:,} -> {after:,} tokens")


if __name__ == "__main__":
    main()
