"""An inspect_ai evaluation under a policy: another model name, and nothing else.

pip install 'leyline-agent[inspect-ai]'; python examples/inspect_ai_task.py, or
inspect eval TASK --model leyline/openai/gpt-5 -M policies=truncate_older_than:n=2,max_chars=200
"""

from __future__ import annotations

import tempfile
from typing import Any

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool


def scripted(messages: Any, *_: Any) -> ModelOutput:
    """Stands in for "openai/gpt-5": it runs the tests five times, and is done."""
    runs = sum(message.role == "tool" for message in messages)
    size = sum(len(message.text) for message in messages)
    print(f"call {runs + 1}: {len(messages)} messages, {size:,} characters")
    output = ModelOutput.from_content("scripted", "Everything passes.")
    if runs < 5:
        output = ModelOutput.for_tool_call("scripted", "run_tests", {})
    output.usage = ModelUsage(input_tokens=size // 4, output_tokens=5, total_tokens=size // 4 + 5)
    return output


@tool
def run_tests() -> Any:
    """A tool that prints much."""

    async def execute() -> str:
        """Run the test suite."""
        return "12 passed\n" * 200

    return execute


policy = "truncate_older_than:n=2,max_chars=200"
model = get_model("leyline/mockllm/model", policies=policy, custom_outputs=scripted)
task = Task(dataset=[Sample("Does it pass?")], solver=[use_tools(run_tests()), generate()])
with tempfile.TemporaryDirectory() as folder:
    (log,) = eval(task, model=model, display="none", log_dir=folder)
    (sample,) = log.samples

record = sum(len(message.text) for message in sample.messages)
(session,) = model.api.leyline.sessions
print(f"{sample.output.completion} The record has {record:,} characters; "
      f"{session.stats().edits} edits.")  # fmt: skip
