r"""mini-swe-agent under a policy: a model around its model.

pip install 'leyline-agent[mini-swe-agent]'; python examples/mini_swe_agent_run.py

Its own command lines take the same class by its path:

    mini -c mini.yaml -c model.leyline.policies=truncate_older_than:n=2,max_chars=200 \
        --model-class leyline_adapters.harnesses.mini_swe_agent.LeylineModel
"""

from __future__ import annotations

from typing import Any

from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.test_models import DeterministicToolcallModel, make_toolcall_output

from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

TESTS = "yes '12 passed' | head -n 200"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo Everything passes."


class Scripted(DeterministicToolcallModel):
    """Stands in for your model: it runs the tests five times, and submits."""

    def query(self, messages: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
        """The next reply."""
        size = sum(len(message["content"] or "") for message in messages)
        print(f"call {len(messages) // 2}: {len(messages)} messages, {size:,} characters")
        reply: dict[str, Any] = super().query(messages, **options)
        return reply


def call(place: int, command: str) -> dict[str, Any]:
    """A reply that runs a command."""
    arguments = {"name": "bash", "arguments": f'{{"command": "{command}"}}'}
    made = {"id": f"call-{place}", "type": "function", "function": arguments}
    action = {"command": command, "tool_call_id": f"call-{place}"}
    reply: dict[str, Any] = make_toolcall_output("", [made], [action])
    return reply


script = [call(place, command) for place, command in enumerate([TESTS] * 5 + [SUBMIT])]
model = LeylineModel(Scripted(outputs=script), policies="truncate_older_than:n=2,max_chars=200")
agent = DefaultAgent(
    model,
    LocalEnvironment(),
    system_template="You test.",
    instance_template="{{task}}",
    cost_limit=0,
)
result = agent.run("Does everything pass?")

record = sum(len(message["content"] or "") for message in agent.messages)
(session,) = model.leyline.sessions
print(f"{result['submission'].strip()} The record has {record:,} characters; "
      f"{session.stats().edits} edits.")  # fmt: skip
