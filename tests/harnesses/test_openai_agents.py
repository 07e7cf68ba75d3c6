"""OpenAI Agents SDK: whole episodes of a real run over a scripted model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from agents import (
    Agent,
    Model,
    ModelResponse,
    RunConfig,
    Runner,
    SQLiteSession,
    Usage,
    function_tool,
    set_tracing_disabled,
)
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseUsage,
)
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails

import leyline_agent as leyline
from leyline_adapters.harnesses.openai_agents import LeylineHooks
from leyline_agent.errors import AdapterError, LeylineError
from leyline_agent.testing import DeterministicModel
from leyline_agent.warning import LeylineWarning

NUM_CALLS = 4

set_tracing_disabled(True)


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """`run_sync` makes an event loop where there is none, and leaves it open."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield
    made.close()
    asyncio.set_event_loop(None)


class Scripted(Model):
    """Thinks, calls the tool a number of times, then answers; keeps what it is sent."""

    def __init__(self, num_calls: int = NUM_CALLS, fails_at: int = -1) -> None:
        self.sent: list[tuple[str | None, list[Any]]] = []
        self._num_calls, self._fails_at = num_calls, fails_at

    async def get_response(self, system_instructions: Any, input: Any, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)
        self.sent.append((system_instructions, input))
        if len(self.sent) - 1 == self._fails_at:
            raise ConnectionError("the provider is gone")
        usage = Usage(
            requests=1, input_tokens=100, output_tokens=10, total_tokens=110,
            input_tokens_details=InputTokensDetails(cached_tokens=60, cache_write_tokens=0),
        )  # fmt: skip
        return ModelResponse(output=self._output(input), usage=usage, response_id=None)

    def _output(self, input: list[Any]) -> list[Any]:
        number = sum(item.get("type") == "function_call_output" for item in input)
        if number >= self._num_calls:
            text = ResponseOutputText(text="Done.", type="output_text", annotations=[])
            return [
                ResponseOutputMessage(
                    id="m", content=[text], role="assistant", status="completed", type="message"
                )
            ]
        return [
            ResponseReasoningItem(id=f"r{number}", summary=[], type="reasoning"),
            ResponseFunctionToolCall(
                id=f"f{number}", call_id=f"call-{number}", name="run", type="function_call",
                arguments=f'{{"number": {number}}}',
            ),
        ]  # fmt: skip

    async def stream_response(self, *args: Any, **options: Any) -> Any:
        made = await self.get_response(*args, **options)
        response = Response(
            id="response", created_at=0, model="scripted", object="response", output=made.output,
            tool_choice="auto", tools=[], parallel_tool_calls=False,
            usage=ResponseUsage(
                input_tokens=100, output_tokens=10, total_tokens=110,
                input_tokens_details=InputTokensDetails(cached_tokens=60, cache_write_tokens=0),
                output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
            ),
        )  # fmt: skip
        yield ResponseCompletedEvent(
            response=response, sequence_number=0, type="response.completed"
        )


def as_sent(request: tuple[str | None, list[Any]]) -> list[tuple[str, str, str]]:
    sent = []
    for item in request[1]:
        kind = item.get("type")
        if kind == "function_call":
            sent.append(("assistant", item["arguments"], item["call_id"]))
        elif kind == "function_call_output":
            sent.append(("tool", item["output"], item["call_id"]))
        elif kind != "reasoning":
            sent.append((item["role"], str(item["content"]), ""))
    return sent


@pytest.fixture
def build(output, policy):
    @function_tool
    def run(number: int) -> str:
        """Run the program."""
        return output(number)

    def build(model, policies=policy, **options):
        hooks = LeylineHooks(policies=policies, **options)
        agent = Agent("agent", instructions="You help.", model=model, tools=[run])
        config = RunConfig(call_model_input_filter=hooks.edit)
        return agent, {"run_config": config, "hooks": hooks}

    return build


def whole_outputs(result: Any) -> list[bool]:
    items = result.to_input_list()
    return [len(i["output"]) > 500 for i in items if i.get("type") == "function_call_output"]


def test_an_episode_is_edited_on_the_way_and_the_record_is_not(build, check) -> None:
    model = Scripted()
    agent, run = build(model)
    result = Runner.run_sync(agent, "Run it.", **run)
    assert result.final_output == "Done."
    check([as_sent(request) for request in model.sent])
    assert [instructions for instructions, _ in model.sent] == ["You help."] * (NUM_CALLS + 1)
    assert whole_outputs(result) == [True] * NUM_CALLS
    (session,) = run["hooks"].leyline.sessions
    assert [(r.prompt, r.reused) for r in session.receipts] == [(100, 60)] * (NUM_CALLS + 1)
    assert session.stats().edits == NUM_CALLS - 1
    assert session.history[-1]["content"] == "Done."
    assert [m["role"] for m in session.history[:3]] == ["user", "assistant", "tool"]


async def test_instructions_may_change_with_every_call(build, check) -> None:
    model = Scripted()
    agent, run = build(model)
    agent.instructions = lambda context, agent: f"It is {len(model.sent)} o'clock."
    await Runner.run(agent, "Run it.", **run)
    check([as_sent(request) for request in model.sent])
    assert [instructions for instructions, _ in model.sent][:2] == [
        "It is 0 o'clock.", "It is 1 o'clock.",
    ]  # fmt: skip
    assert [s.version for s in run["hooks"].leyline.sessions] == [NUM_CALLS + 1]


def test_thoughts_go_with_their_calls(build) -> None:
    model = Scripted()
    agent, run = build(model)
    Runner.run_sync(agent, "Run it.", **run)
    kinds = [item.get("type", item.get("role")) for item in model.sent[-1][1]]
    assert kinds == ["user", *["reasoning", "function_call", "function_call_output"] * NUM_CALLS]


async def test_a_streamed_episode_is_edited_too(build, check) -> None:
    model = Scripted()
    agent, run = build(model)
    result = Runner.run_streamed(agent, "Run it.", **run)
    async for _ in result.stream_events():
        pass
    assert result.final_output == "Done."
    check([as_sent(request) for request in model.sent])
    (session,) = run["hooks"].leyline.sessions
    assert [receipt.prompt for receipt in session.receipts] == [100] * (NUM_CALLS + 1)


async def test_two_conversations_at_once_are_kept_apart(build, check) -> None:
    model = Scripted()
    agent, run = build(model)
    texts = ("First.", "Second.")
    await asyncio.gather(*(Runner.run(agent, text, **run) for text in texts))
    for text in texts:
        check([as_sent(request) for request in model.sent if request[1][0]["content"] == text])
    assert [s.version for s in run["hooks"].leyline.sessions] == [NUM_CALLS + 1] * 2


async def test_a_session_of_the_sdk_goes_on_in_one_of_ours(build) -> None:
    model = Scripted()
    agent, run = build(model)
    kept = SQLiteSession("conversation")
    for task in ("Run it.", "Thank you."):
        await Runner.run(agent, task, session=kept, **run)
    assert [s.version for s in run["hooks"].leyline.sessions] == [NUM_CALLS + 2]
    outputs = [i for i in await kept.get_items() if i.get("type") == "function_call_output"]
    assert all(len(item["output"]) > 500 for item in outputs)
    kept.close()


@pytest.mark.parametrize("fails_at", [0, 2])
async def test_an_error_of_the_model_reaches_the_user_and_the_run_can_go_on(
    build, check, fails_at
) -> None:
    model = Scripted(fails_at=fails_at)
    agent, run = build(model)
    kept = SQLiteSession("conversation")
    with pytest.raises(ConnectionError, match="the provider is gone"):
        await Runner.run(agent, "Run it.", session=kept, **run)
    result = await Runner.run(agent, "Go on.", session=kept, **run)
    assert result.final_output == "Done."
    check([as_sent(request) for request in model.sent[fails_at + 1 :]])
    assert run["hooks"].leyline.sessions[-1].version >= NUM_CALLS
    kept.close()


async def test_without_hooks_the_edits_stay_and_the_user_is_told(build, check) -> None:
    model = Scripted()
    agent, run = build(model)
    with pytest.warns(LeylineWarning, match="pass hooks="):
        await Runner.run(agent, "Run it.", run_config=run["run_config"])
    check([as_sent(request) for request in model.sent])


async def test_inputs_of_old_calls_can_be_cleared(build) -> None:
    model = Scripted()
    agent, run = build(model, "clear_tool_uses:trigger=0,keep=1,clear_tool_inputs=true")
    await Runner.run(agent, "Run it.", **run)
    made = [item for item in model.sent[-1][1] if item.get("type") == "function_call"]
    assert [item["call_id"] for item in made] == [f"call-{n}" for n in range(NUM_CALLS)]
    assert made[0]["arguments"] != '{"number": 0}'
    assert made[-1]["arguments"] == f'{{"number": {NUM_CALLS - 1}}}'
    assert not run["hooks"].leyline.sessions[0].skipped


async def test_a_message_of_parts_is_edited_and_comes_back_in_parts(build, output) -> None:
    """As a policy that keeps the last task only would; images stay what they are."""

    def shorten(messages: list[Any], turn: int) -> list[Any]:
        return [{**m, "content": "short"} if m["role"] == "assistant" else m for m in messages]

    model = Scripted(num_calls=0)
    agent, run = build(model, leyline.transform(shorten))
    image = {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"}
    said = {"type": "output_text", "text": output(0), "annotations": []}
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look."}, image]},
        {"type": "message", "id": "m1", "role": "assistant", "status": "completed",
         "content": [said]},
        {"role": "user", "content": "And now?"},
    ]  # fmt: skip
    await Runner.run(agent, history, **run)
    first, second, third = model.sent[0][1]
    assert (first, third) == (history[0], history[2])
    assert second["content"] == [{**said, "text": "short"}]
    assert second["id"] == "m1"


def test_what_needs_to_make_the_calls_is_refused(build) -> None:
    agent, run = build(Scripted(), adapter=DeterministicModel("Done."))
    with pytest.raises(AdapterError, match="makes the model's calls itself"):
        Runner.run_sync(agent, "Run it.", **run)
    with pytest.raises(LeylineError, match="recall"):
        LeylineHooks(recall=True)


def test_the_example_runs(run_example) -> None:
    run_example("openai_agents_run.py")
