"""Every call of Anthropic's client is edited, here or on Anthropic's servers.

ANTHROPIC_API_KEY=... python examples/instrument_anthropic.py
ANTHROPIC_API_KEY=... python examples/instrument_anthropic.py --server-side
"""

from __future__ import annotations

import os
import sys
from typing import Any

import anthropic

import leyline_agent as leyline
from leyline_adapters.anthropic.adapter import AnthropicAdapter

BASH = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOLS: Any = [{"name": "bash", "input_schema": BASH}]


def agent(task: str) -> list[Any]:
    """A harness, as you have it; its tool is a pretence. The newest result has a breakpoint."""
    client = anthropic.Anthropic()
    messages: list[Any] = [{"role": "user", "content": task}]
    for _ in range(20):
        model = os.environ.get("MODEL", "claude-sonnet-4-5")
        options: Any = {"model": model, "max_tokens": 500, "tools": TOOLS}
        with client.messages.stream(messages=messages, **options) as stream:
            reply = stream.get_final_message()
        messages.append({"role": "assistant", "content": reply.content})
        results: list[Any] = [
            {
                "type": "tool_result",
                "tool_use_id": block.id,
                "content": f"$ {block.input}\n" + "a line of output\n" * 100,
            }
            for block in reply.content
            if block.type == "tool_use"
        ]
        if not results:
            break
        results[-1]["cache_control"] = {"type": "ephemeral"}
        for message in messages[1:]:
            for block in message["content"] if message["role"] == "user" else ():
                block.pop("cache_control", None)
        messages.append({"role": "user", "content": results})
    return messages


def main() -> None:
    """Run the agent, and say what the provider's cache did in each turn."""
    adapter = AnthropicAdapter(server_side="--server-side" in sys.argv)
    policy = "clear_tool_uses:trigger=1000,keep=2"
    with leyline.instrument_anthropic(policies=policy, adapter=adapter) as handle:
        messages = agent("Look at five directories with the tool, then say that you are done.")
    print(len(messages), "messages")
    for receipt in handle.sessions[-1].receipts:
        print(
            f"prompt {receipt.prompt:,}, read {receipt.cache_read}, wrote {receipt.cache_written}, "
            f"lost {receipt.cache_lost}, edits {[edit.policy for edit in receipt.edits]}"
        )


if __name__ == "__main__":
    main()
