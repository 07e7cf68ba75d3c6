"""LangChain and LangGraph: whole episodes of a real agent over a scripted model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import dynamic_prompt
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from leyline_adapters.harnesses.langchain import LeylineMiddleware
from leyline_agent.testing import DeterministicModel, tool_call

NUM_CALLS = 4


class Scripted(BaseChatModel):
    """Calls the tool a number of times, then answers; keeps what it is sent."""

    num_calls: int = NUM_CALLS
    sent: list[list[BaseMessage]] = []
    bound: list[dict[str, Any]] = []
    fails_at: int = -1

    def bind_tools(self, tools: Any, **settings: Any) -> Any:
        self.bound.append({"tools": tools, **settings})
        return self.bind(**settings)

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> Any:
        self.sent.append(messages)
        if len(self.sent) - 1 == self.fails_at:
            raise ConnectionError("the provider is gone")
        number = sum(isinstance(message, ToolMessage) for message in messages)
        called = [{"id": f"call-{number}", "name": "run", "args": {"number": number}}]
        reply = AIMessage(
            content=f"step {number}" if number < self.num_calls else "Done.",
            tool_calls=called if number < self.num_calls else [],
            usage_metadata={
                "input_tokens": 100,
                "output_tokens": 10,
                "total_tokens": 110,
                "input_token_details": {"cache_read": 60},
            },
        )
        return ChatResult(generations=[ChatGeneration(message=reply)])

    @property
    def _llm_type(self) -> str:
        return "scripted"


@pytest.fixture
def model() -> Scripted:
    return Scripted(sent=[], bound=[])


@pytest.fixture
def build(output, policy):
    def run(number: int) -> str:
        """Run the program."""
        return output(number)

    def build(model, *, policies=policy, **options):
        middleware = LeylineMiddleware(policies=policies, **options.pop("leyline", {}))
        agent = create_agent(
            model, [run], system_prompt="You help.", middleware=[middleware], **options
        )
        return agent, middleware

    return build


def task(text: str) -> dict[str, Any]:
    return {"messages": [HumanMessage(text)]}


def as_sent(request: list[BaseMessage]) -> list[tuple[str, str, str]]:
    roles = {"human": "user", "ai": "assistant", "tool": "tool", "system": "system"}
    return [
        (
            roles[message.type],
            str(message.content),
            " ".join(
                [message.tool_call_id]
                if isinstance(message, ToolMessage)
                else [call["id"] for call in getattr(message, "tool_calls", [])]
            ),
        )
        for message in request
    ]


def whole_outputs(state: dict[str, Any]) -> list[bool]:
    return [len(m.content) > 500 for m in state["messages"] if isinstance(m, ToolMessage)]


def test_an_episode_is_edited_on_the_way_and_the_state_is_not(build, model, check) -> None:
    agent, middleware = build(model)
    state = agent.invoke(task("Run it."))
    assert state["messages"][-1].content == "Done."
    check([as_sent(request) for request in model.sent])
    assert [message.content for message in model.sent[0]] == ["You help.", "Run it."]
    assert whole_outputs(state) == [True] * NUM_CALLS
    (session,) = middleware.leyline.sessions
    assert [r.prompt for r in session.receipts] == [100] * (NUM_CALLS + 1)
    assert session.receipts[0].reused == 60
    assert session.stats().edits == NUM_CALLS - 1
    assert session.history[-1]["content"] == "Done."


def test_the_system_prompt_may_change_with_every_call(model, output, policy, check) -> None:
    @dynamic_prompt
    def clock(request: Any) -> str:
        return f"It is {len(model.sent)} o'clock."

    def run(number: int) -> str:
        """Run the program."""
        return output(number)

    middleware = LeylineMiddleware(policies=policy)
    create_agent(model, [run], middleware=[clock, middleware]).invoke(task("Run it."))
    check([as_sent(request[1:]) for request in model.sent])
    assert [r[0].content for r in model.sent][:2] == ["It is 0 o'clock.", "It is 1 o'clock."]
    assert [s.version for s in middleware.leyline.sessions] == [NUM_CALLS + 1]


async def test_an_awaited_episode_is_edited_too(build, model, check) -> None:
    agent, middleware = build(model)
    state = await agent.ainvoke(task("Run it."))
    check([as_sent(request) for request in model.sent])
    assert whole_outputs(state) == [True] * NUM_CALLS
    assert middleware.leyline.sessions[0].version == NUM_CALLS + 1


def test_a_streamed_episode_is_edited_too(build, model, check) -> None:
    agent, _ = build(model)
    assert list(agent.stream(task("Run it."), stream_mode="updates"))
    check([as_sent(request) for request in model.sent])


async def test_two_conversations_at_once_are_kept_apart(build, model, check) -> None:
    agent, middleware = build(model)
    await asyncio.gather(*(agent.ainvoke(task(text)) for text in ("First.", "Second.")))
    for text in ("First.", "Second."):
        check([as_sent(r) for r in model.sent if r[1].content == text])
    assert [s.version for s in middleware.leyline.sessions] == [NUM_CALLS + 1] * 2


def test_threads_with_the_same_task_are_kept_apart(build, model) -> None:
    agent, middleware = build(model, checkpointer=InMemorySaver())
    for thread in ("a", "b", "a"):
        state = agent.invoke(task("Run it."), {"configurable": {"thread_id": thread}})
    assert whole_outputs(state) == [True] * NUM_CALLS
    assert [s.version for s in middleware.leyline.sessions] == [NUM_CALLS + 2, NUM_CALLS + 1]


def test_an_error_of_the_model_reaches_the_user_and_the_next_call_goes_on(
    build, model, check
) -> None:
    model.fails_at = 2
    agent, middleware = build(model, checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "a"}}
    with pytest.raises(ConnectionError, match="the provider is gone"):
        agent.invoke(task("Run it."), thread)
    state = agent.invoke(None, thread)
    assert state["messages"][-1].content == "Done."
    (session,) = middleware.leyline.sessions
    assert session.stats().failed == 1
    check([as_sent(request) for number, request in enumerate(model.sent) if number != 2])


def test_an_edited_result_is_a_copy_that_keeps_what_langchain_put_on_it(build, model) -> None:
    agent, _ = build(model)
    state = agent.invoke(task("Run it."))
    results = [m for m in state["messages"] if isinstance(m, ToolMessage)]
    sent = [m for m in model.sent[-1] if isinstance(m, ToolMessage)]
    for known, edited in zip(results, sent, strict=True):
        assert (edited.id, edited.name, edited.status) == (known.id, known.name, known.status)
    assert sent[-1] is results[-1]
    assert sent[0] is not results[0]


def test_inputs_of_old_calls_can_be_cleared(build, model) -> None:
    policy = "clear_tool_uses:trigger=0,keep=1,clear_tool_inputs=true"
    agent, middleware = build(model, policies=policy)
    agent.invoke(task("Run it."))
    made = [m for m in model.sent[-1] if isinstance(m, AIMessage)]
    assert [m.tool_calls[0]["args"] for m in made[:-1]] != [{"number": n} for n in range(3)]
    assert [m.tool_calls[0]["id"] for m in made] == [f"call-{n}" for n in range(NUM_CALLS)]
    assert made[-1].tool_calls[0]["args"] == {"number": NUM_CALLS - 1}
    assert not middleware.leyline.sessions[0].skipped


def test_failed_calls_are_told_by_their_status(build, model) -> None:
    agent, middleware = build(model)
    history = [
        HumanMessage("Run it."),
        AIMessage("", tool_calls=[{"id": "c", "name": "run", "args": {}}]),
        ToolMessage("no such file", tool_call_id="c", status="error"),
    ]
    model.num_calls = 0
    agent.invoke({"messages": history})
    assert middleware.leyline.sessions[0].history[-2]["is_error"] is True


def test_an_engine_that_makes_the_calls_makes_them_here(build, model) -> None:
    engine = DeterministicModel(tool_call("run", number=0), "Done.")
    agent, middleware = build(model, leyline={"adapter": engine})
    state = agent.invoke(task("Run it."))
    assert state["messages"][-1].content == "Done."
    assert state["messages"][-1].usage_metadata["input_tokens"] > 0
    assert model.sent == []
    assert engine.requests[0]["tools"][0]["function"]["name"] == "run"
    assert [m["role"] for m in engine.requests[1]["messages"]] == [
        "system", "user", "assistant", "tool",
    ]  # fmt: skip
    assert middleware.leyline.sessions[0].version == 2


def test_what_was_cut_is_recalled_behind_the_agent_s_back(build, output) -> None:
    """The model asks for the first output by the id that its stub names, and then goes on."""

    class Recalling(Scripted):
        asked: bool = False

        def _generate(self, messages: Any, *args: Any, **options: Any) -> Any:
            stub = next((m.content for m in messages if "leyline_recall(" in m.content), "")
            if self.asked or not stub:
                return super()._generate(messages, *args, **options)
            self.asked = True
            self.sent.append(messages)
            id = stub.split('leyline_recall("')[1].split('"')[0]
            called = {"id": "ask", "name": "leyline_recall", "args": {"id": id}}
            reply = AIMessage(content="", tool_calls=[called])
            return ChatResult(generations=[ChatGeneration(message=reply)])

    model = Recalling(sent=[], bound=[])
    agent, middleware = build(model, leyline={"recall": True})
    state = agent.invoke(task("Run it."))
    assert state["messages"][-1].content == "Done."
    assert "leyline_recall" not in str(state["messages"])
    assert any(m.content.startswith("output 0") and len(m.content) > 500
               for m in model.sent[3] if isinstance(m, ToolMessage))  # fmt: skip
    assert [getattr(t, "name", None) or t["function"]["name"] for t in model.bound[0]["tools"]] == [
        "run", "leyline_recall",
    ]  # fmt: skip
    assert not middleware.leyline.bypassed


def test_what_an_adapter_adds_reaches_the_model(build, model, telling) -> None:
    agent, _ = build(model, leyline={"adapter": telling})
    agent.invoke(task("Run it."))
    assert [bound["extra_body"] for bound in model.bound] == [
        {"v": number} for number in range(1, NUM_CALLS + 2)
    ]


def test_the_example_runs(run_example) -> None:
    run_example("langchain_agent.py")
