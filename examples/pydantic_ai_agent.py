"""A pydantic-ai agent under a policy: a model around its model.

pip install 'leyline-agent[pydantic-ai]'; python examples/pydantic_ai_agent.py
"""

from __future__ import annotations

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from leyline_adapters.harnesses.pydantic_ai import LeylineModel


def scripted(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Stands in for "openai:gpt-5": it runs the tests five times, and is done."""
    parts = [part for message in messages for part in message.parts]
    runs = sum(part.part_kind == "tool-return" for part in parts)
    size = sum(len(str(getattr(part, "content", ""))) for part in parts)
    print(f"call {runs + 1}: {len(parts)} parts, {size:,} characters")
    return ModelResponse(
        [ToolCallPart("run_tests") if runs < 5 else TextPart("Everything passes.")]
    )


def run_tests() -> str:
    """Run the test suite."""
    return "12 passed\n" * 200


policy = "truncate_older_than:n=2,max_chars=200"
model = LeylineModel(FunctionModel(scripted), policies=policy)
agent = Agent(model, tools=[run_tests])
result = agent.run_sync("Does everything pass?")

record = sum(len(str(getattr(part, "content", "")))
             for message in result.all_messages() for part in message.parts)  # fmt: skip
(session,) = model.leyline.sessions
print(f"{result.output} The record has {record:,} characters; {session.stats().edits} edits.")
