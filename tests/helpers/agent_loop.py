"""A harness of few words: each of its turns is one call and a long result."""

from leyline_agent import Policy
from leyline_agent.testing import tool_call

SYSTEM = {"role": "system", "content": "You fix bugs."}
TASK = {"role": "user", "content": "Fix the bug."}
LONG = "line of output\n" * 40


def call(number):
    """A reply that calls a tool."""
    return tool_call("bash", id=f"call_{number}", command=f"ls {number}")


def result(number, content=LONG):
    """What the tool prints."""
    return {"role": "tool", "tool_call_id": f"call_{number}", "content": content}


class Stub(Policy):
    """Stub every result but the last n."""

    n: int = 1

    def edits(self, trajectory):
        """The edits of long results."""
        for found in trajectory.tool_results[: -self.n]:
            if len(found.content) > 50:
                yield found.replace("stub", reason="old")


def run(session, turns, messages=None):
    """A harness of `turns` turns, each with one call and its result; its own full history."""
    messages = messages if messages is not None else [SYSTEM, TASK]
    for _ in range(turns):
        number = len(messages)
        turn = session.begin(messages)
        turn.finish(call(number))
        messages += [call(number), result(number)]
    return messages


def contents(messages):
    """Each message's content."""
    return [m.get("content") for m in messages]
