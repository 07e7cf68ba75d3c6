"""Edits of recorded runs: the kinds that policies make, at turns of a chosen length."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from leyline_agent.edit import Edit
from leyline_agent.message import Message
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.trajectory import ToolResult, Trajectory
from leyline_evals.fidelity.cases import Case, Kind, Order, make_case
from leyline_evals.fidelity.records import Selection
from leyline_evals.replay.workload import Run, Workload
from leyline_policies.head_and_tail import head_and_tail

__all__ = ["Part", "part_of", "recorded_cases"]

Part = Literal["search", "test"]

_RECORDED = (Kind.STUB, Kind.DROP, Kind.BATCH)
_TRIES = 3  # places looked at for each that is wanted
_STUB_CHARS = 200
_BATCH_CHARS = 80


def part_of(run: Run) -> Part:
    """The part a trajectory belongs to, by a hash of its id: what a search saw, no test uses."""
    return "search" if _number("part", run.recording.id) % 2 else "test"


def recorded_cases(
    files: Sequence[Path], chat: ChatRenderer, selection: Selection
) -> Iterator[Case]:
    """Edits of the runs in some files, in an order that any beginning of it is a fair sample.

    Runs come in the order of a hash of seed and id; of each a few turns, of each turn a few edits.
    """
    runs = [
        run for run in Workload(files) if selection.part == "all" or part_of(run) == selection.part
    ]
    taken: set[str] = set()
    for run in sorted(runs, key=lambda r: (_number(str(selection.seed), r.recording.id), r.file)):
        name = f"{Path(run.file).name.partition('.')[0]}/{run.id}#{run.number}"
        if name not in taken:
            taken.add(name)
            yield from _cases(run, name, chat, selection)


def _cases(run: Run, name: str, chat: ChatRenderer, selection: Selection) -> Iterator[Case]:
    rng = random.Random(_number(str(selection.seed), name))
    replies = [i for i in run.turns if run.recording.messages[i - 1]["role"] == "tool"]
    left = selection.turns
    for place in rng.sample(replies, min(_TRIES * selection.turns, len(replies))):
        messages = _excerpt(run, place, chat, selection)
        found = 0
        for kind in rng.sample(_RECORDED, len(_RECORDED)) if messages else ():
            case = _case(run, name, place, messages, kind, chat, selection, rng)
            if case is not None and found < selection.edits:
                found += 1
                yield case
        left -= found > 0
        if not left:
            return


def _excerpt(run: Run, place: int, chat: ChatRenderer, selection: Selection) -> list[Message]:
    """What the reply at `place` answered: the task, and as many turns before it as fit.

    Long messages are cut in the middle. None fit where the list is empty.
    """
    whole = run.recording.messages
    replies = [i for i in range(place) if whole[i]["role"] == "assistant"]
    head = [_capped(m, selection.head_chars) for m in whole[: replies[0] if replies else place]]
    low, high = selection.tokens
    best: list[Message] = []
    for start in reversed(replies):
        turns = [_capped(m, selection.result_chars) for m in whole[start:place]]
        size = len(chat.render([*head, *turns], run.recording.tools))
        if size > high:
            break
        if size >= low:
            best = [*head, *turns]
    return best


def _capped(message: Message, chars: int) -> Message:
    content = message.get("content")
    if not isinstance(content, str) or message["role"] == "assistant":
        return message
    return {**message, "content": head_and_tail(content, chars)}


def _case(
    run: Run,
    name: str,
    place: int,
    messages: list[Message],
    kind: Kind,
    chat: ChatRenderer,
    selection: Selection,
    rng: random.Random,
) -> Case | None:
    edits = _edits(messages, run.recording.tools, kind, chat, selection, rng)
    if not edits:
        return None
    case = make_case(
        chat,
        f"{name}@{place}/{kind.value}{edits[0].start}",
        name,
        kind,
        messages,
        edits,
        run.recording.messages[place],
        tools=run.recording.tools,
        at_most=selection.continuation,
    )
    if case is None or len(case.continuation) < selection.least_continuation:
        return None
    return case if case.kept(Order.EDIT_FIRST) >= selection.suffix else None


def _edits(
    messages: list[Message],
    tools: Sequence[Any],
    kind: Kind,
    chat: ChatRenderer,
    selection: Selection,
    rng: random.Random,
) -> list[Edit]:
    """Edits of results that the newest reply had answered already."""
    replies = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    old = [r for r in Trajectory(messages, tools=tools).tool_results if r.index < replies[-1]]
    long = [r for r in old if len(chat.encode(r.content)) >= selection.cut]
    if not long:
        return []
    if kind is Kind.BATCH:
        chosen = [r for r in old[:-1] if len(r.content) > 2 * _BATCH_CHARS]
        if len(chosen) < 2 or not set(chosen) & set(long):
            return []
        return [_stub(result, _BATCH_CHARS) for result in chosen]
    result = rng.choice(long)
    if kind is Kind.STUB:
        return [_stub(result, _STUB_CHARS)]
    before = messages[result.index - 1]
    alone = result.index + 1 >= len(messages) or messages[result.index + 1]["role"] != "tool"
    if before["role"] != "assistant" or not alone or result.index < 3:
        return []
    return [Edit(result.index - 1, result.index + 1)]


def _stub(result: ToolResult, chars: int) -> Edit:
    return result.replace(head_and_tail(result.content, chars))


def _number(*parts: str) -> int:
    return int(hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12], 16)
