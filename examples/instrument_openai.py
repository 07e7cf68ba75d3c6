"""Every call of every OpenAI client is edited: threads, tasks and sub-agents each have a session.

OPENAI_API_KEY=... python examples/instrument_openai.py
OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=none python examples/instrument_openai.py
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

import leyline_agent as leyline

BASH = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOLS: Any = [{"type": "function", "function": {"name": "bash", "parameters": BASH}}]


def agent(task: str) -> str:
    """A harness, as you have it; its tool is a pretence."""
    client = openai.OpenAI()
    messages: list[Any] = [{"role": "user", "content": task}]
    for _ in range(20):
        model = os.environ.get("MODEL", "gpt-4.1-mini")
        made = client.chat.completions.create(model=model, messages=messages, tools=TOOLS)
        reply: Any = made.choices[0].message
        messages.append(reply)
        if not reply.tool_calls:
            break
        for call in reply.tool_calls:
            output = f"$ {call.function.arguments}\n" + "a line of output\n" * 100
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    return str(messages[-1].content)


def main() -> None:
    """Run two agents at once, and say what each conversation cost."""
    handle = leyline.instrument_openai(policies="clear_tool_uses:trigger=1000,keep=2")
    tasks = ["Look at four directories with the tool.", "Look at five files with the tool."]
    with ThreadPoolExecutor(2) as pool:
        print(*pool.map(agent, tasks), sep="\n")
    for session in handle.sessions:
        print(f"{len(session.history)} messages, {len(session.edits)} edits, {session.stats()}")


if __name__ == "__main__":
    main()
