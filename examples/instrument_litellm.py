"""Every call through litellm is edited, in code that knows nothing of Leyline.

OPENAI_API_KEY=... python examples/instrument_litellm.py
MODEL=anthropic/claude-sonnet-4-5 ANTHROPIC_API_KEY=... python examples/instrument_litellm.py
"""

from __future__ import annotations

import os
from typing import Any

import leyline_agent as leyline

BASH = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": BASH}}]


def agent(task: str) -> list[Any]:
    """A harness, as you have it; its tool is a pretence."""
    from litellm import completion

    messages: list[Any] = [{"role": "user", "content": task}]
    for _ in range(20):
        model = os.environ.get("MODEL", "openai/gpt-4.1-mini")
        reply = completion(model=model, messages=messages, tools=TOOLS).choices[0].message
        messages.append(reply)
        if not reply.tool_calls:
            break
        for call in reply.tool_calls:
            output = f"$ {call.function.arguments}\n" + "a line of output\n" * 100
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    return messages


def main() -> None:
    """Run the agent, and say what each turn cost."""
    with leyline.instrument_litellm(policies="truncate_older_than:n=2,max_chars=200") as handle:
        messages = agent("Look at five directories with the tool, then say that you are done.")
    print(len(messages), "messages")
    for receipt in handle.sessions[-1].receipts:
        cached = "not told" if receipt.cache_read is None else f"{receipt.cache_read:,}"
        print(f"prompt {receipt.prompt:,}, cached {cached}, edits {len(receipt.edits)}")


if __name__ == "__main__":
    main()
