"""A run of the OpenAI Agents SDK under a policy: a filter in its configuration, and hooks.

pip install 'leyline-agent[openai-agents]'; python examples/openai_agents_run.py
"""

from __future__ import annotations

from typing import Any

from agents import Agent, Model, ModelResponse, RunConfig, Runner, Usage, function_tool
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage
from openai.types.responses.response_output_text import ResponseOutputText

from leyline_adapters.harnesses.openai_agents import LeylineHooks


class Scripted(Model):
    """Stands in for your model: it runs the tests five times, and is done."""

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:
        """The next reply."""
        runs = sum(item.get("type") == "function_call_output" for item in input)
        size = sum(len(str(item.get("output", item.get("content", "")))) for item in input)
        print(f"call {runs + 1}: {len(input)} items, {size:,} characters")
        text = ResponseOutputText(type="output_text", text="Everything passes.", annotations=[])
        said = ResponseOutputMessage(
            id="m", type="message", role="assistant", status="completed", content=[text]
        )
        asked = ResponseFunctionToolCall(
            type="function_call", call_id=f"call-{runs}", name="run_tests", arguments="{}"
        )
        usage = Usage(requests=1, input_tokens=size // 4, output_tokens=5)
        return ModelResponse(output=[asked if runs < 5 else said], usage=usage, response_id=None)

    def stream_response(self, *args: Any, **options: Any) -> Any:
        """Not in this example."""
        raise NotImplementedError


@function_tool
def run_tests() -> str:
    """Run the test suite."""
    return "12 passed\n" * 200


hooks = LeylineHooks(policies="truncate_older_than:n=2,max_chars=200")
config = RunConfig(call_model_input_filter=hooks.edit, tracing_disabled=True)
agent = Agent("tester", model=Scripted(), tools=[run_tests])
result = Runner.run_sync(agent, "Does everything pass?", run_config=config, hooks=hooks)

record = sum(len(str(item.get("output", ""))) for item in result.to_input_list())
(session,) = hooks.leyline.sessions
print(f"{result.final_output} The record has {record:,} characters; "
      f"{session.stats().edits} edits.")  # fmt: skip
