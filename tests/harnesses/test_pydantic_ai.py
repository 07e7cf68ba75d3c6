"""pydantic-ai, both versions: whole episodes of a real agent over a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic_ai import Agent, ModelRetry
from pydantic_ai.messages import (
    ImageUrl,
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel

from leyline_adapters.harnesses.pydantic_ai import LeylineModel
from leyline_agent.errors import AdapterError
from leyline_agent.testing import DeterministicModel, tool_call

NUM_CALLS = 4


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """`run_sync` makes an event loop where there is none, and leaves it open."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield
    made.close()
    asyncio.set_event_loop(None)


class Script:
    """Calls the tool a number of times, then answers; keeps what it is sent."""

    def __init__(self, num_calls: int = NUM_CALLS, fails_at: int = -1) -> None:
        self.sent: list[list[Any]] = []
        self._num_calls, self._fails_at = num_calls, fails_at

    def _number(self, messages: list[Any]) -> int:
        self.sent.append(messages)
        if len(self.sent) - 1 == self._fails_at:
            raise ConnectionError("the provider is gone")
        return sum(len(returns(message)) for message in messages)

    async def reply(self, messages: list[Any], info: AgentInfo) -> ModelResponse:
        await asyncio.sleep(0)
        number = self._number(messages)
        if number >= self._num_calls:
            return ModelResponse([TextPart("Done.")])
        return ModelResponse([ToolCallPart("run", {"number": number}, f"call-{number}")])

    async def stream(self, messages: list[Any], info: AgentInfo) -> Any:
        number = self._number(messages)
        if number >= self._num_calls:
            for word in ("Do", "ne."):
                yield word
            return
        arguments = f'{{"number": {number}}}'
        yield {0: DeltaToolCall("run", arguments, tool_call_id=f"call-{number}")}

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(self.reply, stream_function=self.stream)


def returns(message: Any) -> list[Any]:
    return [part for part in message.parts if isinstance(part, ToolReturnPart)]


def as_sent(request: list[Any]) -> list[tuple[str, str, str]]:
    sent = []
    for message in request:
        if isinstance(message, ModelResponse):
            made = [p.tool_call_id for p in message.parts if isinstance(p, ToolCallPart)]
            sent.append(("assistant", "", " ".join(made)))
            continue
        for part in message.parts:
            role = "tool" if isinstance(part, ToolReturnPart) else part.part_kind
            sent.append((role, str(part.content), part.tool_call_id if role == "tool" else ""))
    return sent


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def build(output, policy):
    def build(script, policies=policy, **options):
        model = LeylineModel(script.model, policies=policies, **options)
        agent = Agent(model, system_prompt="You help.")

        @agent.tool_plain
        def run(number: int) -> str:
            return output(number)

        return agent, model

    return build


def check_record(result: Any) -> None:
    record = [part for message in result.all_messages() for part in returns(message)]
    assert [len(part.content) > 500 for part in record] == [True] * NUM_CALLS


def test_an_episode_is_edited_on_the_way_and_the_record_is_not(build, script, check) -> None:
    agent, model = build(script)
    result = agent.run_sync("Run it.")
    assert result.output == "Done."
    check([as_sent(request) for request in script.sent])
    check_record(result)
    (session,) = model.leyline.sessions
    assert len(session.receipts) == NUM_CALLS + 1
    assert all(receipt.prompt > 0 for receipt in session.receipts)
    assert session.stats().edits == NUM_CALLS - 1
    assert [m["role"] for m in session.history[:4]] == ["system", "user", "assistant", "tool"]
    assert session.history[-1]["content"] == "Done."


def test_instructions_may_change_with_every_call(build, script, check) -> None:
    agent, model = build(script)

    @agent.instructions
    def clock() -> str:
        return f"It is {len(script.sent)} o'clock."

    agent.run_sync("Run it.")
    check([as_sent(request) for request in script.sent])
    assert script.sent[1][-1].instructions == "It is 1 o'clock."
    assert [session.version for session in model.leyline.sessions] == [NUM_CALLS + 1]


def test_an_engine_that_makes_the_calls_is_told_of_instructions(build, script) -> None:
    engine = DeterministicModel("Done.")
    agent, _ = build(script, adapter=engine)
    agent.run_sync("Run it.", instructions="Be brief.")
    roles = [(m["role"], m["content"]) for m in engine.requests[0]["messages"]]
    assert roles == [("system", "Be brief."), ("system", "You help."), ("user", "Run it.")]


async def test_a_streamed_episode_is_edited_too(build, script, check) -> None:
    agent, model = build(script)
    async with agent.run_stream("Run it.") as result:
        assert [text async for text in result.stream_text(debounce_by=None)][-1] == "Done."
    check([as_sent(request) for request in script.sent])
    check_record(result)
    (session,) = model.leyline.sessions
    assert session.version == NUM_CALLS + 1
    assert session.history[-1]["content"] == "Done."


async def test_a_stream_that_is_left_gives_its_turn_up(build) -> None:
    agent, model = build(Script(num_calls=0))
    async with agent.run_stream("Run it.") as result:
        async for _ in result.stream_text(debounce_by=None):
            break
    (session,) = model.leyline.sessions
    assert session.is_idle
    assert session.version in (0, 1)


async def test_two_conversations_at_once_are_kept_apart(build, script, check) -> None:
    """With one and the same task: they differ in the framework's own id only."""
    agent, model = build(script)
    results = await asyncio.gather(agent.run("Run it."), agent.run("Run it."))
    for result in results:
        check_record(result)
    assert [session.version for session in model.leyline.sessions] == [NUM_CALLS + 1] * 2


def test_a_conversation_goes_on_in_its_session(build, script) -> None:
    agent, model = build(script)
    first = agent.run_sync("Run it.")
    agent.run_sync("Thank you.", message_history=first.all_messages())
    assert [session.version for session in model.leyline.sessions] == [NUM_CALLS + 2]
    *edited, last = [part for message in script.sent[-1] for part in returns(message)]
    assert all(len(part.content) < 200 for part in edited)
    assert len(last.content) > 500


async def test_an_error_of_the_model_reaches_the_user_and_the_run_can_go_on(build, output) -> None:
    script = Script(fails_at=2)
    agent, model = build(script)
    async with agent.iter("Run it.") as run:
        with pytest.raises(ConnectionError, match="the provider is gone"):
            async for _ in run:
                pass
    history = run.ctx.state.message_history
    again = (
        agent.run_sync(message_history=history)
        if False
        else await agent.run(message_history=history)
    )
    assert again.output == "Done."
    (session,) = model.leyline.sessions
    assert session.stats().failed == 1


def test_an_edited_part_is_a_copy_in_a_request_that_keeps_the_rest(build, script) -> None:
    agent, _ = build(script)
    result = agent.run_sync("Run it.")
    record = [m for m in result.all_messages() if isinstance(m, ModelRequest)]
    sent = [m for m in script.sent[-1] if isinstance(m, ModelRequest)]
    assert [m.run_id for m in sent] == [m.run_id for m in record]
    assert [m.timestamp for m in sent] == [m.timestamp for m in record]
    assert sent[0].parts == record[0].parts
    assert sent[1].parts[0].content != record[1].parts[0].content


def test_inputs_of_old_calls_can_be_cleared(build, script) -> None:
    agent, model = build(script, "clear_tool_uses:trigger=0,keep=1,clear_tool_inputs=true")
    agent.run_sync("Run it.")
    made = [m.parts[0] for m in script.sent[-1] if isinstance(m, ModelResponse)]
    assert [part.tool_call_id for part in made] == [f"call-{n}" for n in range(NUM_CALLS)]
    assert made[0].args_as_dict() != {"number": 0}
    assert made[-1].args_as_dict() == {"number": NUM_CALLS - 1}
    assert not model.leyline.sessions[0].skipped


def test_a_retry_is_a_failed_result_and_an_image_is_known_by_name(policy) -> None:
    model = LeylineModel(Script(num_calls=1).model, policies=policy)
    agent, tries = Agent(model, retries=3), []

    @agent.tool_plain
    def run(number: int) -> str:
        tries.append(number)
        if len(tries) == 1:
            raise ModelRetry("no such file")
        return "fine"

    agent.run_sync(["Look.", ImageUrl("https://example.com/a.png")])
    (session,) = model.leyline.sessions
    text, image = session.history[0]["content"]
    assert (text["text"], image["type"]) == ("Look.", "image_url")
    first = next(message for message in session.history if message["role"] == "tool")
    assert first["is_error"] is True
    assert "no such file" in first["content"]
    assert not session.oddities


def test_a_test_model_with_output_tools_is_edited_too(output, policy) -> None:
    model = LeylineModel(TestModel(), policies=policy)
    agent = Agent(model, output_type=list[int])
    assert agent.run_sync("Numbers.").output
    assert model.leyline.sessions[0].receipts


def test_an_engine_that_makes_the_calls_makes_them_here(build, script) -> None:
    engine = DeterministicModel(tool_call("run", number=0), "Done.")
    agent, model = build(script, adapter=engine)
    result = agent.run_sync("Run it.")
    assert result.output == "Done."
    assert script.sent == []
    assert [m["role"] for m in engine.requests[1]["messages"]] == [
        "system", "user", "assistant", "tool",
    ]  # fmt: skip
    assert engine.requests[0]["tools"][0]["function"]["name"] == "run"
    assert model.leyline.sessions[0].version == 2


async def test_an_engine_that_makes_the_calls_makes_none_as_a_stream(build, script) -> None:
    agent, model = build(script, adapter=DeterministicModel("Done."))
    with pytest.raises(AdapterError, match="run the agent without streaming"):
        async with agent.run_stream("Run it."):
            pass
    assert model.leyline.sessions[0].is_idle


def test_what_was_cut_is_recalled_behind_the_agent_s_back(build) -> None:
    """The model asks for the first output by the id that its stub names, and then goes on."""

    class Recalling(Script):
        tools: tuple[str, ...] = ()

        async def reply(self, messages: list[Any], info: AgentInfo) -> ModelResponse:
            parts = [part for message in messages for part in returns(message)]
            stub = next((p.content for p in parts if "leyline_recall(" in p.content), "")
            if self.tools or not stub:
                return await super().reply(messages, info)
            self.tools = tuple(tool.name for tool in info.function_tools)
            self.sent.append(messages)
            id = stub.split('leyline_recall("')[1].split('"')[0]
            return ModelResponse([ToolCallPart("leyline_recall", {"id": id}, "ask")])

    script = Recalling()
    agent, model = build(script, recall=True)
    result = agent.run_sync("Run it.")
    assert result.output == "Done."
    assert "leyline_recall" not in str(result.all_messages())
    assert script.tools == ("run", "leyline_recall")
    shown = [part.content for message in script.sent[3] for part in returns(message)]
    assert any(text.startswith("output 0") and len(text) > 500 for text in shown)
    assert not model.leyline.bypassed


def test_what_an_adapter_adds_reaches_the_model(build, telling) -> None:
    class Settings(Script):
        bodies: tuple[Any, ...] = ()

        async def reply(self, messages: list[Any], info: AgentInfo) -> ModelResponse:
            self.bodies += (info.model_settings["extra_body"],)
            return await super().reply(messages, info)

    script = Settings(num_calls=1)
    agent, _ = build(script, adapter=telling)
    agent.run_sync("Run it.", model_settings={"extra_body": {"mine": True}})
    assert script.bodies == ({"mine": True, "v": 1}, {"mine": True, "v": 2})


def test_the_example_runs(run_example) -> None:
    run_example("pydantic_ai_agent.py")
