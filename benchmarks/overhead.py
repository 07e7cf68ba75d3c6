"""What Leyline adds to a turn besides the model, and what importing it costs.

    python benchmarks/overhead.py [--messages 200] [--out benchmarks/results/overhead.json]

A generated trajectory of tool calls grows by one call and result a turn. Timed at its end, each
step of an edited turn: `begin` (branch, policies, legality, view), lowering (render and diff),
and `finish`.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from typing import Any

from common import save, spread

import leyline_agent as leyline
from leyline_agent.adapter import Commit
from leyline_agent.serving.engine import Engine, Prompt
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.serving.models.load import load_tokenizer
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.turns import plan_chat
from leyline_agent.testing import MockAdapter

Message = dict[str, Any]


SIX = (
    "dedupe+stale_file+superseded+drop_failed_calls:after=20+keep_last:n=50,polling=10"
    "+cap_at_ingestion"
)
TEN = (
    "redact+dedupe+stale_file+superseded+drop_failed_calls:after=20+pivot_trim"
    "+erratum:fields=version|Port+pinned:policy=(keep_last:n=50,polling=10)"
    "+summarise:trigger=200000+cap_at_ingestion"
)
"""All built-in policies that go together: the others do what one of these does, otherwise."""


def trajectory(count: int, seed: int = 0, words_each: int = 160, files: int = 0) -> list[Message]:
    """`count` messages: a task, then calls of `bash`, each answered by some `words_each` words.

    With `files` the calls read so many files in turn, else each reads one of its own.
    """
    rng = random.Random(seed)
    words = "def return import error value path test line assert result self index".split()
    messages: list[Message] = [
        {"role": "system", "content": "You fix bugs with a shell."},
        {"role": "user", "content": "Make the tests pass."},
    ]
    while len(messages) < count:
        number = len(messages)
        call = {
            "name": "bash",
            "arguments": json.dumps(
                {"command": f"cat file{number % files if files else number}.py"}
            ),
        }
        messages.append(
            {
                "role": "assistant",
                "content": "I will look.",
                "tool_calls": [{"id": f"call_{number}", "type": "function", "function": call}],
            }
        )
        output = " ".join(rng.choice(words) for _ in range(rng.randrange(40, 2 * words_each - 40)))
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": output})
    return messages[:count]


def session_turns(messages: list[Message], policy: str) -> dict[str, Any]:
    """Milliseconds of begin and finish over the last 20 turns of a session.

    `begin_cpu_ms` is what the process computed: on a busy machine the better figure.
    """
    session = leyline.Session(policy, MockAdapter())
    begin, begin_cpu, finish = [], [], []
    replies = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for index in replies:
        # The harness builds a new list each turn, as harnesses do.
        sent = [dict(message) for message in messages[:index]]
        started, computed = time.perf_counter(), time.process_time()
        turn = session.begin(sent)
        begin_cpu.append((time.process_time() - computed) * 1e3)
        begin.append((time.perf_counter() - started) * 1e3)
        response = {"choices": [{"index": 0, "message": messages[index]}]}
        started = time.perf_counter()
        turn.finish(response)
        finish.append((time.perf_counter() - started) * 1e3)
    edits = len(session.edits)
    assert edits > 0, f"{policy} edited nothing"
    return {
        "begin_ms": spread(begin[-20:]),
        "begin_cpu_ms": spread(begin_cpu[-20:]),
        "finish_ms": spread(finish[-20:]),
        "edits": edits,
    }


def pipeline(policies: str, count: int = 500) -> dict[str, Any]:
    """A pipeline on a run of 100,000 tokens: a turn of a session, and the same from scratch."""
    messages = trajectory(count, words_each=280, files=97)
    last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
    scratch = []
    for _ in range(5):
        session = leyline.Session(policies, MockAdapter())
        sent = [dict(message) for message in messages[:last]]
        started = time.process_time()
        session.begin(sent)
        scratch.append((time.process_time() - started) * 1e3)
    return {
        "policies": policies,
        "characters": sum(len(str(m.get("content"))) for m in messages),
        "from_scratch_cpu_ms": spread(scratch),
        **session_turns(messages, policies),
    }


def lowering(messages: list[Message], model: str, rounds: int = 20) -> dict[str, Any]:
    """Milliseconds to turn one edited turn into a prompt with a directive, everything warm."""
    chat = ChatRenderer(load_tokenizer(resolve(model)))
    engine = Engine.counting()
    before, stub = messages[:-2], {**messages[-8], "content": "[elided]"}
    run = engine.start(Prompt(chat.render(before, ())[:-3]))
    base = Version(1, 0, "", before, run.finish(), 0, run.receipt)
    session = EngineSession("", "s")
    session.versions[1] = base
    place = len(messages) - 8
    view = [*messages[:place], stub, *messages[place + 1 :]]
    edit = {"messages": (place, place + 1), "count": 1}
    commit = Commit(session="s", base_version=1, version=2, edits=(edit,))  # type: ignore[arg-type]
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        turn = plan_chat(chat, view, (), "", session, commit)
        times.append((time.perf_counter() - started) * 1e3)
        assert len(turn.prompt.items) == 1
    return {"prompt_tokens": len(turn.prompt.tokens), "ms": spread(times[1:])}


def import_ms(rounds: int = 7) -> Any:
    """Milliseconds of `import leyline_agent` in fresh processes."""
    code = (
        "import time; t = time.perf_counter(); import leyline_agent; "
        "print((time.perf_counter() - t) * 1e3)"
    )
    run = [sys.executable, "-c", code]
    return spread([float(subprocess.check_output(run)) for _ in range(rounds)])


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--model", default=DEFAULT, help="whose tokenizer renders")
    parser.add_argument("--pipelines", action="store_true", help="measure the pipelines alone")
    parser.add_argument("--out")
    options = parser.parse_args()
    pipelines = {"pipeline": pipeline(SIX), "pipeline_of_ten": pipeline(TEN)}
    if options.pipelines:
        save(options.out, "pipelines", pipelines)
        return
    messages = trajectory(options.messages)
    figures = {
        "messages": len(messages),
        "characters": sum(len(str(m.get("content"))) for m in messages),
        "import_ms": import_ms(),
        "truncate_older_than": session_turns(messages, "truncate_older_than"),
        "keep_last": session_turns(messages, "keep_last:n=5"),
        **pipelines,
        "lowering": lowering(messages, options.model),
    }
    save(options.out, "overhead", figures)


if __name__ == "__main__":
    main()
