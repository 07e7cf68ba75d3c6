"""inspect_ai: whole evaluations with real agents over its scripted model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval, eval_async
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessageTool, GenerateConfig, ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import ToolError, tool

from leyline_agent.testing import DeterministicModel, tool_call

NUM_CALLS = 4

# What inspect_ai asks of a newer tenacity is its own business.
pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning")


def counted(output: ModelOutput) -> ModelOutput:
    """With a usage; the scripted model would fetch a tokenizer to make one."""
    output.usage = ModelUsage(
        input_tokens=40, input_tokens_cache_read=60, output_tokens=10, total_tokens=110
    )
    return output


class Script:
    """Calls the tool a number of times, then answers; keeps what it is sent."""

    def __init__(self, num_calls: int = NUM_CALLS, fails_at: int = -1) -> None:
        self.sent: list[list[Any]] = []
        self.offered: list[str] = []
        self.bodies: list[Any] = []
        self._num_calls, self._fails_at = num_calls, fails_at

    def __call__(self, input: list[Any], tools: list[Any], choice: Any, config: Any) -> ModelOutput:
        self.sent.append(input)
        self.bodies.append(config.extra_body)
        self.offered = [tool.name for tool in tools]
        if len(self.sent) - 1 == self._fails_at:
            raise ConnectionError("the provider is gone")
        number = sum(isinstance(message, ChatMessageTool) for message in input)
        return counted(self._output(number))

    def _output(self, number: int) -> ModelOutput:
        if number >= self._num_calls:
            if "submit" in self.offered:
                return ModelOutput.for_tool_call("mockllm", "submit", {"answer": "Done."})
            return ModelOutput.from_content("mockllm", "Done.")
        called = {"tool_name": "run", "tool_arguments": {"number": number}}
        return ModelOutput.for_tool_call("mockllm", **called, tool_call_id=f"call-{number}")


def as_sent(request: list[Any]) -> list[tuple[str, str, str]]:
    return [
        (
            message.role,
            message.text,
            message.tool_call_id
            if message.role == "tool"
            else " ".join(call.id for call in getattr(message, "tool_calls", None) or ()),
        )
        for message in request
    ]


@pytest.fixture
def run(output):
    @tool
    def run() -> Any:
        async def execute(number: int) -> str:
            """Run the program.

            Args:
                number: Which time.
            """
            return output(number)

        return execute

    return run


@pytest.fixture
def build(policy):
    def build(script, policies=policy, **options):
        return get_model(
            "leyline/mockllm/model", custom_outputs=script, policies=policies, memoize=False,
            **options,
        )  # fmt: skip

    return build


@pytest.fixture
def evaluate(tmp_path, run):
    """Evaluate tasks with the agent of the framework's own; the log."""

    def evaluate(model, *inputs: str, solver=None, **options):
        agent = solver or react(prompt="You help.", tools=[run()])
        task = Task(dataset=[Sample(one) for one in inputs], solver=agent)
        (log,) = eval(task, model=model, display="none", log_dir=str(tmp_path), **options)
        return log

    return evaluate


def check_record(sample: Any) -> None:
    record = [m for m in sample.messages if m.role == "tool" and m.function == "run"]
    assert [len(message.text) > 500 for message in record] == [True] * NUM_CALLS


def test_an_episode_is_edited_on_the_way_and_the_record_is_not(build, evaluate, check) -> None:
    script = Script()
    model = build(script)
    log = evaluate(model, "Run it.")
    assert log.status == "success"
    assert log.eval.model == "leyline/mockllm/model"
    check([as_sent(request) for request in script.sent])
    check_record(log.samples[0])
    (session,) = model.api.leyline.sessions
    assert [(r.prompt, r.reused) for r in session.receipts] == [(100, 60)] * (NUM_CALLS + 1)
    assert session.stats().edits == NUM_CALLS - 1
    assert not model.api.leyline.bypassed


def test_a_solver_without_an_agent_is_edited_too(build, evaluate, run, check) -> None:
    script = Script()
    log = evaluate(build(script), "Run it.", solver=[use_tools(run()), generate()])
    assert log.samples[0].output.completion == "Done."
    check([as_sent(request) for request in script.sent])


async def test_an_evaluation_of_the_user_s_own_loop(build, run, tmp_path, check) -> None:
    script = Script()
    task = Task(dataset=[Sample("Run it.")], solver=[use_tools(run()), generate()])
    (log,) = await eval_async(task, model=build(script), log_dir=str(tmp_path))
    assert log.status == "success"
    check([as_sent(request) for request in script.sent])


def test_samples_and_epochs_at_once_are_kept_apart(build, evaluate, check) -> None:
    script = Script()
    model = build(script)
    log = evaluate(model, "First.", "Second.", epochs=2)
    assert len(log.samples) == 4
    for sample in log.samples:
        check_record(sample)
    assert [s.version for s in model.api.leyline.sessions] == [NUM_CALLS + 1] * 4
    assert all(len(s.edits) == NUM_CALLS - 1 for s in model.api.leyline.sessions)


def test_an_error_of_the_model_is_the_framework_s_to_handle(build, evaluate, check) -> None:
    script = Script(fails_at=2)
    model = build(script)
    log = evaluate(model, "Run it.")
    assert log.status == "error"
    assert "the provider is gone" in log.error.message
    (session,) = model.api.leyline.sessions
    assert session.stats().failed == 1
    assert session.is_idle


def test_a_failed_tool_s_error_is_what_is_edited(build, evaluate) -> None:
    """Providers send the error in place of the content."""

    @tool(name="run")
    def failing() -> Any:
        async def execute(number: int) -> str:
            """Run the program.

            Args:
                number: Which time.
            """
            raise ToolError(f"error {number}\n" + "a line of the trace\n" * 40)

        return execute

    script = Script(num_calls=2)
    model = build(script)
    evaluate(model, "Run it.", solver=[use_tools(failing()), generate()])
    (session,) = model.api.leyline.sessions
    assert [m["is_error"] for m in session.history if m["role"] == "tool"] == [True, True]
    first, second = [m for m in script.sent[-1] if m.role == "tool"]
    assert len(first.error.message) < 200 < len(second.error.message)


def test_inputs_of_old_calls_can_be_cleared(build, evaluate) -> None:
    script = Script()
    model = build(script, "clear_tool_uses:trigger=0,keep=1,clear_tool_inputs=true")
    log = evaluate(model, "Run it.")
    assert log.status == "success", log.error
    made = [m.tool_calls[0] for m in script.sent[-1] if m.role == "assistant"]
    assert [call.id for call in made] == [f"call-{n}" for n in range(NUM_CALLS)]
    assert made[0].arguments != {"number": 0}
    assert made[-1].arguments == {"number": NUM_CALLS - 1}
    calls = [m.tool_calls for m in log.samples[0].messages if m.role == "assistant"]
    assert calls[0][0].arguments == {"number": 0}


def test_what_was_cut_is_recalled_behind_the_agent_s_back(build, evaluate) -> None:
    """The model asks for the first output by the id that its stub names, and then goes on."""

    class Recalling(Script):
        asked = False

        def __call__(self, input: list[Any], *args: Any) -> ModelOutput:
            stub = next((m.text for m in input if "leyline_recall(" in m.text), "")
            if self.asked or not stub:
                return super().__call__(input, *args)
            self.asked = True
            self.sent.append(input)
            id = stub.split('leyline_recall("')[1].split('"')[0]
            return counted(ModelOutput.for_tool_call("mockllm", "leyline_recall", {"id": id}))

    script = Recalling()
    model = build(script, recall=True)
    log = evaluate(model, "Run it.")
    assert log.status == "success", log.error
    assert "leyline_recall" not in str(log.samples[0].messages)
    assert script.offered == ["run", "submit", "leyline_recall"]
    shown = [m.text for m in script.sent[3] if m.role == "tool"]
    assert any(text.startswith("output 0") and len(text) > 500 for text in shown)


def test_it_is_the_other_provider_in_all_else(build) -> None:
    script = Script()
    model = build(script)
    assert model.api.max_connections() == get_model("mockllm/model").api.max_connections()
    assert model.api.model_name == "mockllm/model"
    assert model.name == "mockllm/model"
    assert model.canonical_name() == "model"


async def test_an_engine_that_makes_the_calls_makes_them_here(build) -> None:
    engine, script = DeterministicModel(tool_call("run", number=0)), Script()
    model = build(script, adapter=engine)
    output = await model.generate("Run it.", config=GenerateConfig(temperature=0.5))
    assert output.message.tool_calls[0].arguments == {"number": 0}
    assert output.usage.input_tokens > 0
    assert engine.requests[0]["temperature"] == 0.5
    assert script.sent == []


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (["truncate_older_than:n=3", "max_chars=60"], "truncate_older_than:n=3,max_chars=60"),
        (["keep_last:n=4", "dedupe"], "keep_last:n=4+dedupe"),
    ],
)
def test_a_policy_s_text_is_put_together_again(build, given: list[str], text: str) -> None:
    """The command line splits it at its commas; a list of policies is one still."""
    assert str(build(Script(), given).api.leyline.policy) == text


def test_the_command_line_needs_no_code(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from inspect_ai import Task, task\n"
        "from inspect_ai.dataset import Sample\n"
        "from inspect_ai.solver import system_message\n"
        "@task\ndef one():\n"
        "    return Task(dataset=[Sample('Hello.')], solver=system_message('You help.'))\n"
    )
    command = [str(Path(sys.executable).with_name("inspect")), "eval", "task.py", "--display=plain"]
    policy = "policies=truncate_older_than:n=2,max_chars=60"
    done = subprocess.run(
        [*command, "--model", "leyline/mockllm/model", "-M", policy],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "leyline/mockllm/model" in done.stdout
    assert "rror" not in done.stdout


async def test_what_an_adapter_adds_reaches_the_model(build, telling) -> None:
    script = Script()
    await build(script, adapter=telling).generate("Run it.")
    assert script.bodies == [{"v": 1}]


def test_the_example_runs(run_example) -> None:
    run_example("inspect_ai_task.py")
