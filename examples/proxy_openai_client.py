"""An agent that knows nothing of Leyline, edited by `leyline proxy`.

leyline proxy --upstream https://api.openai.com/v1 --policy keep_last:n=2
OPENAI_BASE_URL=http://127.0.0.1:8100/s/example/v1 python examples/proxy_openai_client.py
"""

from __future__ import annotations

import os
from typing import Any

import httpx
import openai

BASH = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
TOOLS: Any = [{"type": "function", "function": {"name": "bash", "parameters": BASH}}]


def agent(client: openai.OpenAI, task: str, turns: int) -> list[Any]:
    """A harness, as you have it; its tool is a pretence."""
    messages: list[Any] = [{"role": "user", "content": task}]
    for _ in range(turns):
        reply = client.chat.completions.create(
            model=os.environ.get("MODEL", "gpt-5-mini"), messages=messages, tools=TOOLS
        )
        message = reply.choices[0].message
        messages.append(message.model_dump(exclude_none=True))
        if not message.tool_calls:
            break
        for call in message.tool_calls:
            output = f"$ {call.id}\n" + "a line of output\n" * 100
            messages.append({"role": "tool", "tool_call_id": call.id, "content": output})
    return messages


def main() -> None:
    """Run the agent, and ask the proxy what became of its calls."""
    with openai.OpenAI() as client:
        task = "Look at five directories with the tool, one at a time, then say that you are done."
        messages = agent(client, task, turns=8)
        print(f"the agent's messages: {len(messages)}, {len(str(messages)):,} characters")
        sessions = client.base_url.join("/v1/leyline/sessions")
        headers = {"Authorization": f"Bearer {client.api_key}"}
        for session in httpx.get(sessions, headers=headers).json()["data"]:
            print(
                f"session {session['id']}: {session['turns']} turns, {session['edits']} edits, "
                f"{session['prompt']:,} prompt tokens, {session['prefilled']:,} of them prefilled"
            )


if __name__ == "__main__":
    main()
