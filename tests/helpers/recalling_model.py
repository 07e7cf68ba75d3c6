"""A scripted model that recalls what it is shown a stub of."""

import json
import re

from leyline_agent.recall.tool import NAME
from leyline_agent.testing import DeterministicModel


def call(name, call_id, /, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": call_id, "type": "function", "function": function}


def reply(*calls):
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def recalling(*, besides):
    """Calls bash, and recalls each stub it is shown once: alone, or besides another call."""
    asked = set()

    def said(messages):
        ids = re.findall(r'leyline_recall\(\\?"(r\w+)', json.dumps(messages))
        new = [id for id in ids if id not in asked]
        bash = call("bash", f"b{len(messages)}", command="ls")
        if not new:
            return reply(bash)
        asked.add(new[0])
        recall = call(NAME, f"r{len(messages)}", id=new[0])
        return reply(recall, bash) if besides else reply(recall)

    return DeterministicModel(said, repeat=True)
