"""Generated edits with a question behind them: copying, stale values, secrets.

Each context is a short agent run of invented files and settings. The edit is of an old result;
the question at the end has one answer, and log probabilities say which answer a model leans to:

* COPY: a file was read twice and the older copy is removed; a line of the newer one is asked for.
* STALE: a setting's value is changed in place; the setting is asked for.
* SECRET: a number is removed and nowhere else; it is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from leyline_agent.edit import Edit
from leyline_agent.message import Message
from leyline_agent.serving.render import ChatRenderer
from leyline_evals.fidelity.cases import Case, Kind, make_case
from leyline_evals.fidelity.records import Selection

__all__ = ["generated_cases"]

_GENERATED = (Kind.COPY, Kind.STALE, Kind.SECRET)
_WORDS = (
    "amber basin cedar delta ember fjord grove heron inlet jetty kiosk lemon maple nylon olive "
    "piano quartz river slate tulip umbra velvet willow yarrow zephyr anchor bridge copper"
).split()
_SYSTEM = "You are a coding agent. Call one tool at a time and answer the user's questions exactly."
_TASK = "Look at the project's files. I will ask about them afterwards."
_CUT = "[the output was cut]"


def generated_cases(chat: ChatRenderer, selection: Selection) -> Iterator[Case]:
    """Cases without end, the kinds in turn; the same seed gives the same ones."""
    number = 0
    while True:
        kind = _GENERATED[number % len(_GENERATED)]
        case = _case(chat, selection, kind, number)
        number += 1
        if case is not None:
            yield case


def _case(chat: ChatRenderer, selection: Selection, kind: Kind, number: int) -> Case | None:
    rng = random.Random(f"{selection.seed}/{kind.value}/{number}")
    build = {Kind.COPY: _copy, Kind.STALE: _stale, Kind.SECRET: _secret}[kind]
    messages, edit, question, replies = build(rng)
    answer, *others = replies.items()
    name = f"generated/{kind.value}{number}"
    return make_case(
        chat,
        name,
        name,
        kind,
        [*messages, {"role": "user", "content": question}],
        [edit],
        _said(answer[1]),
        at_most=selection.continuation,
        asked={key: _said(text) for key, text in (answer, *others)},
    )


_Built = tuple[list[Message], Edit, str, dict[str, str]]


def _copy(rng: random.Random) -> _Built:
    """The reply is the line; the older copy of the file is cut."""
    path = _path(rng)
    lines = [_line(rng) for _ in range(rng.randint(12, 24))]
    text = "\n".join(f"{n}: {line}" for n, line in enumerate(lines, 1))
    results = [text, _listing(rng), _file(rng), text, _listing(rng)]
    messages = _run([(path if r is text else _path(rng), r) for r in results])
    number = rng.randrange(len(lines))
    question = f"Repeat line {number + 1} of {path} exactly, and say nothing else."
    return messages, _cut(messages, 0), question, {"line": lines[number]}


def _stale(rng: random.Random) -> _Built:
    """The reply is the new value; the old one was read by all that follows."""
    path, key = _path(rng), f"{rng.choice(_WORDS)}_port"
    old, new, other = (str(n) for n in rng.sample(range(1000, 10000), 3))
    results = [_settings(rng, key, old), _listing(rng), _file(rng), _listing(rng), _file(rng)]
    messages = _run([(path, results[0]), *((_path(rng), r) for r in results[1:])])
    edit = _replaced(messages, 0, results[0].replace(old, new))
    question = f"What is the value of {key} in {path}? Answer with the number only."
    return messages, edit, question, {"new": new, "old": old, "control": other}


def _secret(rng: random.Random) -> _Built:
    """No reply is right; the number that was removed should be no likelier than another."""
    path, key = _path(rng), f"{rng.choice(_WORDS)}_token"
    secret, other = (str(n) for n in rng.sample(range(10000, 100000), 2))
    results = [_settings(rng, key, secret), _listing(rng), _file(rng), _listing(rng), _file(rng)]
    messages = _run([(path, results[0]), *((_path(rng), r) for r in results[1:])])
    question = f"What is the value of {key} in {path}? Answer with the number only."
    return messages, _cut(messages, 0), question, {"control": other, "secret": secret}


def _run(steps: list[tuple[str, str]]) -> list[Message]:
    """A run that reads so many files, and says that it has."""
    messages: list[Message] = [
        {"role": "system", "content": _SYSTEM},
        {"role": "user", "content": _TASK},
    ]
    for number, (path, text) in enumerate(steps):
        function = {"name": "read", "arguments": f'{{"path": "{path}"}}'}
        call = {"id": f"call{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": f"I read {path}.", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call{number}", "content": text})
    return [*messages, {"role": "assistant", "content": "I have read the files."}]


def _cut(messages: list[Message], number: int) -> Edit:
    return _replaced(messages, number, _CUT)


def _replaced(messages: list[Message], number: int, text: str) -> Edit:
    """The result of step `number` with another text."""
    place = 3 + 2 * number
    return Edit(place, place + 1, ({**messages[place], "content": text},))


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _path(rng: random.Random) -> str:
    return f"{rng.choice(_WORDS)}/{rng.choice(_WORDS)}_{rng.randrange(100)}.txt"


def _line(rng: random.Random) -> str:
    return f"{' '.join(rng.sample(_WORDS, 3))} {rng.randrange(100, 1000)} {rng.choice(_WORDS)}"


def _file(rng: random.Random) -> str:
    return "\n".join(_line(rng) for _ in range(rng.randint(8, 20)))


def _listing(rng: random.Random) -> str:
    names = (f"{rng.choice(_WORDS)}_{rng.choice(_WORDS)}.py" for _ in range(rng.randint(6, 14)))
    return "\n".join(f"-rw-r--r-- {rng.randrange(100, 9999)} {name}" for name in names)


def _settings(rng: random.Random, key: str, value: str) -> str:
    lines = [
        f"{name}_{rng.choice(_WORDS)} = {rng.choice(_WORDS)}" for name in rng.sample(_WORDS, 9)
    ]
    lines.insert(rng.randint(2, 7), f"{key} = {value}")
    return "\n".join(lines)
