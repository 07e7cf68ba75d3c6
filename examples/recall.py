"""Recall: a policy cuts an output, the model asks to see it again, the harness notices nothing.

python examples/recall.py
"""

from __future__ import annotations

import json
import re
from typing import Any

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, tool_call

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]


def look_again(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """What a model does that needs an output of which it sees the stub only."""
    reply = tool_call("leyline_recall", content="What did the listing say?")
    named = re.search(r'leyline_recall\(\\"(\w+)\\"\)', json.dumps(messages))
    assert named is not None
    reply["tool_calls"][0]["function"]["arguments"] = json.dumps({"id": named[1]})
    return reply


# Stands in for your client: it plays back a script.
client = DeterministicModel(
    tool_call("bash", command="ls"), tool_call("bash", command="make"), look_again, "It is there."
)


@leyline.wrap(policies="keep_last:n=1", recall=leyline.Recall(max_per_turn=2))
def call_model(messages: list[Any], tools: list[Any]) -> Any:
    """The call, as any agent makes it; a recall in it is answered before it returns."""
    return client.chat.completions.create(model="any", messages=messages, tools=tools)


def main() -> None:
    """Run the agent; show what it saw, what the model saw, and what it cost."""
    messages: list[Any] = [{"role": "user", "content": "Is there a Makefile?"}]
    while messages[-1]["role"] != "assistant":
        response = call_model(messages, TOOLS)
        messages.append(response.choices[0].message)
        for call in messages[-1].get("tool_calls") or ():
            output = f"Makefile and what {call['function']['arguments']} prints\n" * 20
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})

    (session,) = call_model.leyline.sessions  # type: ignore[attr-defined]
    print("the harness:", *(message["role"] for message in messages))
    print("the model:  ", *(message["role"] for message in session.view))
    stats = session.stats()
    print(f"{stats.turns} turns, {stats.hidden} hidden call, {stats.recalls} recall")
    print(f"prompt tokens of the last turn, as the harness counts: {response.usage.prompt_tokens}")


if __name__ == "__main__":
    main()
