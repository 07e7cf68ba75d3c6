"""An OpenHands conversation under a policy: a condenser.

pip install 'leyline-agent[openhands]'; python examples/openhands_conversation.py
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from openhands.sdk import (
    Action,
    Agent,
    Conversation,
    Message,
    Observation,
    TextContent,
    Tool,
    ToolDefinition,
    register_tool,
)
from openhands.sdk.llm import MessageToolCall
from openhands.sdk.testing import TestLLM
from openhands.sdk.tool import ToolExecutor

from leyline_adapters.harnesses.openhands import LeylineCondenser


class Scripted(TestLLM):
    """Stands in for your LLM: it runs the tests five times, and is done."""

    def completion(self, messages: list[Message], *args: Any, **options: Any) -> Any:
        """The next reply."""
        size = sum(len(part.text) for message in messages[1:] for part in message.content)
        print(f"call {self.call_count + 1}: {len(messages)} messages, {size:,} characters")
        return super().completion(messages, *args, **options)


class RunTests(Action):
    """No arguments."""


class Tested(Observation):
    """What the tests print."""


class Runner(ToolExecutor):
    """Runs the test suite."""

    def __call__(self, action: RunTests, conversation: Any = None) -> Tested:
        """What it prints."""
        return Tested.from_text("12 passed\n" * 200)


class RunTestsTool(ToolDefinition[RunTests, Tested]):
    """The one tool."""

    name = "run_tests"

    @classmethod
    def create(cls, conv_state: Any = None, **params: Any) -> Sequence[RunTestsTool]:
        """The tool, as OpenHands makes it."""
        kinds = {"action_type": RunTests, "observation_type": Tested}
        return [cls(description="Run the test suite.", executor=Runner(), **kinds)]


def call(place: int) -> Message:
    """A reply that runs the tests."""
    called = MessageToolCall(
        id=f"call-{place}", name="run_tests", arguments="{}", origin="completion"
    )
    return Message(role="assistant", content=[], tool_calls=[called])


register_tool("RunTestsTool", RunTestsTool)
done = Message(role="assistant", content=[TextContent(text="Everything passes.")])
llm = Scripted.from_messages([*map(call, range(5)), done])
condenser = LeylineCondenser(policies="truncate_older_than:n=2,max_chars=200")
agent = Agent(llm=llm, tools=[Tool(name="RunTestsTool")], condenser=condenser)
conversation = Conversation(
    agent, workspace=tempfile.mkdtemp(), visualizer=None, stuck_detection=False
)
conversation.send_message("Does everything pass?")
conversation.run()
condenser.settle()

messages = [event.to_llm_message() for event in conversation.state.view.events]
record = sum(len(part.text) for message in messages[1:] for part in message.content)
(session,) = condenser.leyline.sessions
print(f"{messages[-1].content[0].text} The record has {record:,} characters; "
      f"{session.stats().edits} edits.")  # fmt: skip
