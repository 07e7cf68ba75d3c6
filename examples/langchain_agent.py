"""A LangChain agent under a policy: one argument more.

pip install 'leyline-agent[langchain]'; python examples/langchain_agent.py
"""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from leyline_adapters.harnesses.langchain import LeylineMiddleware


class Scripted(BaseChatModel):
    """Stands in for your chat model: it runs the tests five times, and is done."""

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """The model itself."""
        return self

    def _generate(self, messages: Any, *args: Any, **options: Any) -> ChatResult:
        runs = sum(isinstance(message, ToolMessage) for message in messages)
        size = sum(len(message.text) for message in messages)
        print(f"call {runs + 1}: {len(messages)} messages, {size:,} characters")
        calls = [{"id": f"call-{runs}", "name": "run_tests", "args": {}}] if runs < 5 else []
        reply = AIMessage("" if calls else "Everything passes.", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


def run_tests() -> str:
    """Run the test suite."""
    return "12 passed\n" * 200


edits = LeylineMiddleware(policies="truncate_older_than:n=2,max_chars=200")
agent = create_agent(Scripted(), [run_tests], middleware=[edits])
state = agent.invoke({"messages": [("user", "Does everything pass?")]})

record = sum(len(message.text) for message in state["messages"])
(session,) = edits.leyline.sessions
print(f"{state['messages'][-1].text} The record has {record:,} characters; "
      f"{session.stats().edits} edits.")  # fmt: skip
