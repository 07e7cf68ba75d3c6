"""Above a trigger, one message that a model wrote in the place of all old ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from pydantic import Field

from leyline_agent import message as message_module
from leyline_agent.edit import Edit, protected_indices
from leyline_agent.message import Message, called, calls
from leyline_agent.policy import Policy
from leyline_agent.question import Ask
from leyline_agent.signals import SUMMARY, originals
from leyline_agent.trajectory import Trajectory
from leyline_policies.head_and_tail import head_and_tail

__all__ = ["Summarise"]

INSTRUCTIONS = """\
Below is the beginning of an agent's work, which is about to be removed from its context. Write down
what it needs to go on: what the user wants, with every constraint word for word; what was found
out, with exact names, paths and values; what was changed; what failed and why; what was about to be
done. No preamble, nothing that is not below."""


class _Stretch(NamedTuple):
    """Messages [start, end) of a view, in whole groups; `ends` are where the groups end."""

    start: int
    ends: tuple[int, ...]

    @property
    def end(self) -> int:
        return self.ends[-1]


class Summarise(Policy):
    """Replace what is older than the `keep` last turns by a model's summary of it.

    The question is yielded once the view is over `trigger` tokens, the session asks the model
    meanwhile, and the edit follows on the turn after the answer: the agent waits for nothing. It is
    made at a boundary: a call and its results go together, and what is pinned, the system prompt
    and the task stay. The next summary takes in the one before, so there is never more than one in
    a stretch. An answer that is empty, cut off, or longer than half of what it stands for is none;
    failures are asked again ever more rarely, and no more once `budget` is spent.

    The mode is REPAIR: a summary says again what it replaces, so KV behind it that has seen the
    text contradicts nothing. Where nothing of the text may stay take mode=forget.

    Source: OpenHands' LLMSummarizingCondenser and LangChain's SummarizationMiddleware, whose agents
    wait for the model. On SWE-bench Verified summaries did no better than a mask (arXiv 2508.21433:
    53.8 and 54.8 % with Qwen3-Coder-480B, 53.4 % with neither). With trigger=16000,
    clear_at_least=8000, max_tokens=1000 on 8 recorded mini-swe-agent runs, extracts of a summary's
    length standing in for a model's, in thousand tokens: prompts 12,089 to 6,608; computed 320 with
    a prefix cache only, 206 with REPAIR, 200 with AMORTIZE (append-only 172). The model that
    summarises reads 215 and writes 29 besides, in 23 questions.

    Attributes:
        model: which model, as litellm names it; may be left out where `fulfil` is passed.
        trigger: summarise only while the view is larger than this, in tokens.
        keep: how many turns at the end stay: assistant messages and what follows them.
        clear_at_least: summarise only where so many tokens go that are no summary yet.
        max_tokens: of a summary.
        clip: characters of each message that the model is shown, both ends.
        budget: tokens that questions of a session may cost.
        instructions: what the model is told.
    """

    model: str = ""
    trigger: int = Field(100_000, ge=0)
    keep: int = Field(10, ge=1)
    clear_at_least: int = Field(10_000, ge=1)
    max_tokens: int = Field(1500, ge=1)
    clip: int = Field(4000, ge=100)
    budget: int = Field(1_000_000, ge=0)
    instructions: str = INSTRUCTIONS

    def edits(self, trajectory: Trajectory) -> Iterator[Edit | Ask]:
        """The summary where it is there, else the question."""
        if trajectory.tokens() <= self.trigger:
            return
        for stretch in _stretches(trajectory, self.keep):
            if _new_tokens(trajectory, stretch) >= self.clear_at_least:
                keys = list(self._keys(trajectory, stretch))
                summary = self._summary(trajectory, stretch, keys)
                if summary is not None:
                    yield summary
                elif keys[-1] not in trajectory.answers:
                    yield self._question(trajectory, stretch, keys[-1])
                return

    def _summary(
        self, trajectory: Trajectory, stretch: _Stretch, keys: Sequence[str]
    ) -> Edit | None:
        """The longest part of the stretch that was answered for, which grew since it was asked."""
        for end, key in zip(reversed(stretch.ends), reversed(keys), strict=True):
            if key in trajectory.answers:
                note = {"role": "user", "content": f"{SUMMARY}\n{trajectory.answers[key].strip()}"}
                gone = trajectory.messages[stretch.start : end]
                if trajectory.tokens([note]) < trajectory.tokens(gone):
                    return Edit(stretch.start, end, (note,), reason="summarised")
        return None

    def _question(self, trajectory: Trajectory, stretch: _Stretch, key: str) -> Ask:
        gone = trajectory.messages[stretch.start : stretch.end]
        told = "\n\n".join(_told(message, self.clip) for message in gone)
        chars = round(trajectory.tokens(gone) * trajectory.chars_per_token)
        return Ask(
            key=key,
            messages=(
                {"role": "system", "content": self.instructions},
                {"role": "user", "content": told},
            ),
            model=self.model,
            max_tokens=self.max_tokens,
            max_chars=max(chars // 2, 1),
            budget=self.budget,
        )

    def _keys(self, trajectory: Trajectory, stretch: _Stretch) -> Iterator[str]:
        """The name of the question about each part of the stretch that begins where it does.

        A result counts as the tool gave it: that another policy cuts it changes no name.
        """
        pairs = zip(trajectory.tool_results, originals(trajectory), strict=True)
        answered = {result.index: original.content for result, original in pairs}
        digest = blake2b(f"{self.model}\0{self.instructions}".encode(), digest_size=16)
        start = stretch.start
        for end in stretch.ends:
            for index in range(start, end):
                message = trajectory.messages[index]
                said = answered.get(index)
                digest.update(_digest(message_module.text(message) if said is None else said))
                digest.update(_digest(_called(message)))
            start = end
            yield digest.hexdigest()


def _stretches(trajectory: Trajectory, keep: int) -> Iterator[_Stretch]:
    """What may go, oldest first: between what is protected, what is pinned, and the last turns."""
    messages = trajectory.messages
    replies = [
        index for index, message in enumerate(messages) if message.get("role") == "assistant"
    ]
    if len(replies) <= keep:
        return
    results = {result.index for result in trajectory.tool_results}
    first = max(protected_indices(messages), default=-1) + 1
    ends: list[int] = []
    start = index = first
    while index < replies[-keep]:
        end = index + 1
        while end in results or (end < len(messages) and _answers(messages[end])):
            end += 1
        if trajectory.pinned.isdisjoint(range(index, end)):
            ends.append(end)
        else:
            if ends:
                yield _Stretch(start, tuple(ends))
            start, ends = end, []
        index = end
    if ends:
        yield _Stretch(start, tuple(ends))


def _answers(message: Message) -> bool:
    return message.get("role") in ("tool", "function")


def _new_tokens(trajectory: Trajectory, stretch: _Stretch) -> int:
    """Tokens in a stretch that no summary stands for yet."""
    gone = trajectory.messages[stretch.start : stretch.end]
    return trajectory.tokens(m for m in gone if not message_module.text(m).startswith(SUMMARY))


def _told(message: Message, clip: int) -> str:
    """A message for the model that summarises."""
    text = message_module.text(message)
    if not text.startswith(SUMMARY):
        text = head_and_tail(text, clip)
    parts = [text, head_and_tail(_called(message), clip)]
    return f"## {message.get('role')}\n" + "\n".join(part for part in parts if part)


def _called(message: Message) -> str:
    made: Sequence[tuple[object, object]] = [called(call) for call in calls(message)]
    return "\n".join(f"-> {name} {arguments}" for name, arguments in made)


@lru_cache(maxsize=4096)
def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
