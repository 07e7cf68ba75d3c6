"""A harness whose model recalls: deterministic, with a session over a simulated engine."""

import json
import re
from itertools import count

from leyline_agent import Session
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"type": "object"}}}]
TASK = [{"role": "system", "content": "s"}, {"role": "user", "content": "task"}]
LINE = re.compile(r'\[leyline_recall\("(\w+)"\) shows the whole output\]')
_ids = count()


def ids_in(messages):
    """The ids that the lines in messages name, oldest first."""
    return LINE.findall(json.dumps([m.get("content") for m in messages]).replace('\\"', '"'))


def recalls(*wanted, beside=(), content="Let me see that again.", **arguments):
    """A reply that recalls; a number is the place among the ids of the stubs in the prompt."""

    def reply(messages):
        ids = [ids_in(messages)[w] if isinstance(w, int) else w for w in wanted]
        calls = [("leyline_recall", {"id": id, **arguments}) for id in ids]
        calls += [("bash", {"command": command}) for command in beside]
        return {
            "role": "assistant",
            "content": content,
            "tool_calls": [
                {
                    "id": f"r{next(_ids)}",
                    "type": "function",
                    "function": {"name": name, "arguments": json.dumps(given)},
                }
                for name, given in calls
            ],
        }

    return reply


def runs(command="ls"):
    """A reply that runs something."""
    return tool_call("bash", id="", command=command)


def output(number):
    """What a tool answers: too long for a policy."""
    return f"result {number}: " + f"line of output {number}\n" * 40


class Harness:
    """An agent's loop as harnesses write it; `messages` is its history."""

    def __init__(self, *script, policies="keep_last:n=1", tools=TOOLS, adapter=None, **options):
        self.adapter = adapter or MockAdapter(DeterministicModel(*script))
        options.setdefault("recall", True)
        self.session = Session(policies, self.adapter, **options)
        self.messages = list(TASK)
        self.tools = tools
        self.replies = []
        self.outputs = count()

    def turn(self):
        """One turn; the tools that the reply calls are run."""
        turn = self.session.begin(self.messages, tools=self.tools)
        response = self.adapter.complete(turn.request)
        while turn.advance(response):
            response = self.adapter.complete(turn.request)
        turn.finish(response)
        told = turn.delivered(response)
        self.replies.append(told)
        reply = told["choices"][0]["message"]
        self.messages = [*self.messages, reply]
        for call in reply.get("tool_calls") or ():
            assert call["function"]["name"] != "leyline_recall"
            answered = {"role": "tool", "tool_call_id": call["id"]}
            self.messages.append({**answered, "content": output(next(self.outputs))})
        return reply

    def turns(self, num):
        """Several turns; the replies."""
        return [self.turn() for _ in range(num)]

    @property
    def requests(self):
        """What the model was sent."""
        return self.adapter.model.requests
