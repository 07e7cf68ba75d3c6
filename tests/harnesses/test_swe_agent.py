"""SWE-agent's own agent, model and tools over a scripted shell, through whole episodes."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from model_server import Refused, serving

from leyline_adapters.harnesses.swe_agent import LeylineHistory
from leyline_agent.testing import DeterministicModel, tool_call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # What SWE-agent imports.
    from sweagent.agent.agents import DefaultAgent, DefaultAgentConfig
    from sweagent.agent.history_processors import CacheControlHistoryProcessor
    from sweagent.agent.problem_statement import TextProblemStatement
    from sweagent.environment.swe_env import EnvironmentConfig, SWEEnv
    from sweagent.tools.tools import ToolConfig
    from swerex.deployment.config import DummyDeploymentConfig
    from swerex.runtime.abstract import BashObservation, ReadFileResponse

pytestmark = pytest.mark.filterwarnings("default")  # SWE-agent's and its libraries' own

POLICY = "truncate_older_than:n=1,max_chars=60"
NUM_CALLS = 4
PATCH = "diff --git a/a b/a\n"


class Shell:
    """Prints a long text for every command but the last, which submits."""

    def __init__(self, runtime, output):
        self._output = output
        self.num_commands = 0
        runtime.run_in_session = self.run_in_session
        runtime.read_file = self.read_file

    async def run_in_session(self, action):
        command = getattr(action, "command", "")
        if command.startswith("submit"):
            return BashObservation(exit_code=0, output="<<SWE_AGENT_SUBMISSION>>")
        if not command.startswith("run"):
            return BashObservation(exit_code=0)
        self.num_commands += 1
        return BashObservation(exit_code=0, output=self._output(self.num_commands))

    async def read_file(self, request):
        return ReadFileResponse(content=PATCH if "model.patch" in str(request.path) else "{}")


@pytest.fixture
def env(output):
    made = SWEEnv.from_config(EnvironmentConfig(deployment=DummyDeploymentConfig(), repo=None))
    made.start()
    made.shell = Shell(made.deployment.runtime, output)
    yield made
    made.close()


@pytest.fixture
def agent_at(monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)

    def agent_at(url, parse="function_calling", **model):
        settings = {
            "name": "openai/scripted",
            "api_base": url,
            "api_key": "none",
            "per_instance_cost_limit": 0,
            "total_cost_limit": 0,
            "max_input_tokens": 0,
            "retry": {"retries": 3},
            **model,
        }
        tools = ToolConfig(parse_function={"type": parse}, bundles=[], enable_bash_tool=True)
        templates = {
            "system_template": "You fix bugs.",
            "instance_template": "Task: {{problem_statement}}",
            "next_step_template": "{{observation}}",
        }
        config = DefaultAgentConfig(model=settings, tools=tools, templates=templates)
        return DefaultAgent.from_config(config)

    return agent_at


def bash(command):
    return tool_call("bash", content="I run it.", command=command)


def script(*replies):
    return DeterministicModel(
        *[bash(f"run {n}") for n in range(NUM_CALLS)], *replies, bash("submit")
    )


def solve(agent, env, folder):
    return agent.run(env, TextProblemStatement(text="count"), folder)


def as_sent(request):
    return [
        (
            message["role"],
            text_of(message),
            message.get("tool_call_id")
            or " ".join(call["id"] for call in message.get("tool_calls") or ()),
        )
        for message in request["messages"]
    ]


def text_of(message):
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def test_an_episode_is_submitted_and_its_history_stays_whole(agent_at, env, check, tmp_path):
    model = script()
    with serving(model) as url:
        agent = agent_at(url)
        agent.history_processors.insert(0, processor := LeylineHistory(POLICY))
        done = solve(agent, env, tmp_path)
    assert done.info["exit_status"] == "submitted"
    assert done.info["submission"] == PATCH
    check(list(map(as_sent, model.requests)))
    observed = [item for item in agent.history if item["role"] == "tool"]
    assert [len(item["content"]) > 500 for item in observed] == [True] * NUM_CALLS + [False]
    saved = json.loads(agent.traj_path.read_text())
    assert saved["history"] == agent.history
    sent = saved["trajectory"][NUM_CALLS]["query"]
    assert [len(item["content"]) < 200 for item in sent if item["role"] == "tool"][:3] == [True] * 3
    (session,) = processor.leyline.sessions
    assert session.stats().edits == NUM_CALLS - 1


def test_without_edits_the_requests_are_those_of_the_agent_itself(agent_at, env, tmp_path):
    asked = []
    for processors in ([], [LeylineHistory("keep_all")]):
        model = script()
        with serving(model) as url:
            agent = agent_at(url)
            agent.history_processors[:0] = processors
            env.shell.num_commands = 0
            solve(agent, env, tmp_path)
        asked.append(model.requests)
    assert asked[0] == asked[1]


def test_calls_written_as_text_are_edited_too(agent_at, env, tmp_path):
    said = [f"I run it.\n```\nrun {n}\n```" for n in range(NUM_CALLS)]
    model = DeterministicModel(*said, "Done.\n```\nsubmit\n```")
    with serving(model) as url:
        agent = agent_at(url, parse="thought_action")
        agent.history_processors.insert(0, LeylineHistory(POLICY))
        assert solve(agent, env, tmp_path).info["exit_status"] == "submitted"
    results = [m["content"] for m in model.requests[-1]["messages"] if m["role"] == "user"][1:]
    assert [len(text) < 200 for text in results] == [True] * (NUM_CALLS - 1) + [False]


def test_cache_marks_stand_on_what_is_sent(agent_at, env, check, tmp_path):
    model = script()
    with serving(model) as url:
        agent = agent_at(url)
        agent.history_processors = [LeylineHistory(POLICY), CacheControlHistoryProcessor()]
        solve(agent, env, tmp_path)
    check(list(map(as_sent, model.requests)))


def test_a_reply_that_cannot_be_parsed_is_asked_for_again(agent_at, env, check, tmp_path):
    model = DeterministicModel(
        *[bash(f"run {n}") for n in range(NUM_CALLS)], "No call.", bash("submit")
    )
    with serving(model) as url:
        agent = agent_at(url)
        agent.history_processors.insert(0, processor := LeylineHistory(POLICY))
        assert solve(agent, env, tmp_path).info["exit_status"] == "submitted"
    again = as_sent(model.requests[-1])
    assert again[: len(again) - 2] == as_sent(model.requests[-2])
    assert len(processor.leyline.sessions) == 1


def test_demonstrations_and_kept_outputs_are_left_alone():
    def item(role, content, **more):
        return {
            "role": role,
            "content": content,
            "agent": "main",
            "message_type": "thought",
            **more,
        }

    long = "line of output\n" * 40
    history = [item("system", "You fix bugs."), item("user", "Task")]
    for n, more in enumerate([{"is_demo": True}, {"tags": ["keep_output"]}, {}, {}]):
        call = {"id": f"c{n}", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
        history.append(item("assistant", "", tool_calls=[call], **more))
        history.append(item("tool", long, tool_call_ids=[f"c{n}"], **more))
    shown = LeylineHistory(POLICY)(history)
    assert [i["content"] == long for i in shown if i["role"] == "tool"] == [True, True, False, True]
    assert shown[3] is history[3]
    assert shown[7]["tool_call_ids"] == ["c2"]


def test_the_model_s_errors_end_the_run_as_sweagent_ends_it(agent_at, env, tmp_path):
    model = DeterministicModel(bash("run 0"), Refused(401))
    with serving(model) as url:
        agent = agent_at(url)
        agent.history_processors.insert(0, LeylineHistory(POLICY))
        done = solve(agent, env, tmp_path)
    assert done.info["exit_status"] == "submitted (exit_error)"


def test_the_model_s_retries_send_the_same(agent_at, env, tmp_path):
    model = script(Refused(500), Refused(500))
    with serving(model) as url:
        agent = agent_at(url)
        agent.history_processors.insert(0, processor := LeylineHistory(POLICY))
        assert solve(agent, env, tmp_path).info["exit_status"] == "submitted"
    assert model.requests[-1] == model.requests[-2] == model.requests[-3]
    assert len(processor.leyline.sessions[0].receipts) == NUM_CALLS + 1


def test_the_example_runs(tmp_path):
    """To its end: a model that calls no tool any more is given up."""
    example = Path(__file__).resolve().parents[2] / "examples" / "swe_agent_run.py"
    with serving(DeterministicModel(bash("ls"), bash("ls"), *["No call."] * 3)) as url:
        model = {"name": "openai/scripted", "api_base": url, "api_key": "none"}
        limits = dict.fromkeys(["per_instance_cost_limit", "total_cost_limit"], 0)
        settings = {f"agent.model.{key}": value for key, value in (model | limits).items()} | {
            "env.deployment.type": "dummy",
            "problem_statement.text": "count",
            "output_dir": tmp_path,
        }
        command = [sys.executable, example, *(f"--{k}={v}" for k, v in settings.items())]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.search(r"[1-9] turns, 0 edits", done.stdout)
