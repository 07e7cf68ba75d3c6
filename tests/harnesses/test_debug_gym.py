"""debug-gym's own agents, LLM, terminal and tools on a small repository, through whole episodes."""

import importlib.util
import json
import logging
import os
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from model_server import Refused, serving

import leyline_agent as leyline
from leyline_adapters.anthropic.messages import to_chat
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # What debug-gym imports, its benchmarks' packages included.
    from debug_gym.agents.base_agent import AgentArgs, BaseAgent, create_agent
    from debug_gym.gym.envs.local import LocalEnv
    from debug_gym.gym.terminals.local import LocalTerminal
    from debug_gym.gym.tools.tool import ToolCall
    from debug_gym.gym.tools.toolbox import Toolbox
    from debug_gym.llms.anthropic import AnthropicLLM
    from debug_gym.llms.base import LLM, LLMConfig, LLMResponse, TokenUsage
    from debug_gym.logger import DebugGymLogger

    from leyline_adapters.harnesses.debug_gym import LeylineAgent, LeylineLLM

POLICY = "truncate_older_than:n=1,max_chars=60"
LONG = tool_call("bash", command="seq 1 200")
FIX = tool_call("edit", path="calc.py", start=2, end=2, new_code="    return sum(xs) / len(xs)")
EVAL = tool_call("eval")


class Env(LocalEnv):
    """A repository on this machine; the agent's runner asks for its name."""

    task_name = "calc"


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    beside = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([beside, os.environ["PATH"]]))
    found = importlib.util.find_spec("litellm")
    tokenizers = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tokenizers))
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)


@pytest.fixture
def logger():
    return DebugGymLogger("test", level=logging.ERROR)


@pytest.fixture
def env(tmp_path, logger):
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "calc.py").write_text("def mean(xs):\n    return sum(xs) / (len(xs) - 1)\n")
    (repo / "test_calc.py").write_text(
        "from calc import mean\n\n\ndef test_mean():\n    assert mean([1, 2, 3]) == 2\n"
    )
    made = Env(
        str(repo),
        terminal=LocalTerminal(logger=logger),
        entrypoint="python -m pytest -q -p no:cacheprovider .",
        run_timeout=60,
        max_score=1,
        logger=logger,
    )
    for name in ("bash", "view", "edit", "eval"):
        made.add_tool(Toolbox.get_tool(name))
    yield made
    made.close()


@pytest.fixture
def llm_at(tmp_path, logger):
    def llm_at(url):
        config = {"model": "scripted", "tokenizer": "gpt-4o", "endpoint": url, "api_key": "none"}
        path = tmp_path / "llm.yaml"
        path.write_text(yaml.safe_dump({"scripted": {**config, "context_limit": 32}}))
        return LLM.instantiate("scripted", llm_config_file_path=str(path), logger=logger)

    return llm_at


@pytest.fixture
def run(env, llm_at, logger):
    """Run an agent named in a configuration: it, its trajectory, and what its model was sent."""

    def run(*script, agent="leyline_adapters.harnesses.debug_gym.LeylineAgent", **settings):
        model = DeterministicModel(*script)
        config = {
            "type": agent,
            "system_prompt": "You fix bugs.",
            "max_steps": 50,
            "leyline": {"policies": POLICY, **settings},
        }
        with serving(model) as url:
            made = create_agent(config, llm=llm_at(url), logger=logger)
            trajectory = made.run(env)
        return made, trajectory, [request["messages"] for request in model.requests]

    return run


def results(messages):
    return [message["content"] for message in messages if message["role"] == "tool"]


def as_sent(messages):
    return [
        (
            message["role"],
            message["content"],
            message.get("tool_call_id")
            or " ".join(call["id"] for call in message.get("tool_calls") or ()),
        )
        for message in messages
    ]


def test_an_episode_is_solved_and_its_record_stays_whole(run, check):
    agent, trajectory, asked = run(LONG, LONG, LONG, FIX, EVAL)
    assert trajectory["success"] is True
    assert [step["action"]["name"] for step in trajectory["log"][1:]] == [
        *["bash"] * 3,
        "edit",
        "eval",
    ]
    check([as_sent(messages) for messages in asked[:4]])
    observed = [step["obs"] for step in trajectory["log"][1:4]]
    assert all(len(text) > 500 for text in observed)
    assert results(agent.build_prompt(agent.env.infos))[:3] == observed
    sent = trajectory["log"][4]["prompt_response_pairs"][0]["prompt"]
    assert [len(text) < 200 for text in results(sent)] == [True, True, False]
    (session,) = agent.llm.leyline.sessions
    assert session.stats().edits == 3
    assert (len(session.receipts), session.version) == (5, 5)
    assert session.receipts[1].reused > 0


def test_without_edits_the_requests_are_those_of_the_agent_itself(run, env):
    _, _, plain = run(LONG, FIX, EVAL, agent="debug_gym.agents.base_agent.BaseAgent")
    env.terminal.run("git checkout .")
    _, _, managed = run(LONG, FIX, EVAL, policies="keep_all")
    assert list(map(without_times, managed)) == list(map(without_times, plain))


def without_times(messages):
    """debug-gym says how long tests took, and where the repository was copied to."""
    return [
        (role, text[:40] if role != "tool" else "", ids) for role, text, ids in as_sent(messages)
    ]


def test_the_froggy_agent_whose_system_prompt_changes_is_edited_too(run):
    agent, trajectory, asked = run(
        LONG, LONG, FIX, EVAL, agent="leyline_adapters.harnesses.debug_gym.LeylineFroggyAgent"
    )
    assert trajectory["success"] is True
    assert [len(text) < 200 for text in results(asked[2])] == [True, False]
    assert type(agent).__mro__[1].name == "froggy_agent"


def test_any_llm_is_managed_from_python(env, llm_at, logger):
    model = DeterministicModel(LONG, LONG, FIX, EVAL)
    with serving(model) as url:
        llm = LeylineLLM(llm_at(url), POLICY)
        agent = BaseAgent(AgentArgs(system_prompt="You fix bugs.", max_steps=50), llm, logger)
        assert agent.run(env)["success"] is True
    assert [len(text) < 200 for text in results(model.requests[2]["messages"])] == [True, False]
    assert llm.context_length == 32_000


def test_an_error_of_the_provider_reaches_the_user_and_is_no_turn(env, llm_at, logger):
    import openai

    model = DeterministicModel(LONG, Refused(404))
    with serving(model) as url:
        args = {"system_prompt": "You fix bugs.", "leyline": {"policies": POLICY}}
        agent = LeylineAgent(args, llm_at(url), logger)
        with pytest.raises(openai.NotFoundError):
            agent.run(env)
    (session,) = agent.llm.leyline.sessions
    assert (len(session.receipts), session.stats().failed) == (1, 1)


def test_the_llm_s_retries_are_one_turn(run):
    agent, trajectory, _ = run(Refused(500), Refused(429), LONG, FIX, EVAL)
    assert trajectory["success"] is True
    assert len(agent.llm.leyline.sessions[0].receipts) == 3


def test_an_engine_of_ours_answers_in_the_llm_s_place(env, llm_at, logger):
    adapter = MockAdapter(DeterministicModel(LONG, LONG, LONG, LONG, FIX, EVAL))
    llm = LeylineLLM(llm_at("http://127.0.0.1:9"), POLICY.replace("n=1", "n=2"), adapter)
    agent = BaseAgent(AgentArgs(system_prompt="You fix bugs.", max_steps=50), llm, logger)
    assert agent.run(env)["success"] is True
    (session,) = llm.leyline.sessions
    assert sum(receipt.reused_spliced for receipt in session.receipts) > 0


def recall(messages):
    """A reply that asks for the first output cut, by the id that its stub names."""
    stub = next(text for text in results(messages) if "leyline_recall(" in text)
    arguments = json.dumps({"id": stub.split('leyline_recall("')[1].split('"')[0]})
    call = {"type": "function", "function": {"name": "leyline_recall", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_what_was_cut_is_recalled_behind_the_agent_s_back(run):
    agent, trajectory, asked = run(LONG, LONG, recall, FIX, EVAL, recall=True)
    assert trajectory["success"] is True
    assert [step["action"]["name"] for step in trajectory["log"][1:]] == [
        *["bash"] * 2,
        "edit",
        "eval",
    ]
    assert "199" in results(asked[3])[-1]
    assert not agent.llm.leyline.bypassed


class Claude(AnthropicLLM):
    """debug-gym's Anthropic LLM, with a script in the place of its client."""

    def __init__(self, model, logger):
        config = LLMConfig(model="scripted", context_limit=32, api_key="none")
        super().__init__("scripted", config, logger)
        self.model = model

    def count_tokens(self, messages):
        return 1

    def generate(self, messages, tools, **kwargs):
        self.model.requests.append({"messages": messages, "tools": self.define_tools(tools)})
        made = self.model._next(to_chat({"messages": messages[1:]}).messages)
        call = made["tool_calls"][0]
        function = call["function"]
        tool = ToolCall(call["id"], function["name"], json.loads(function["arguments"]))
        return LLMResponse(messages, "I run it.", tool=tool, token_usage=TokenUsage(100, 10))


def test_an_anthropic_llm_is_edited_in_its_own_blocks(env, logger):
    model = DeterministicModel(LONG, LONG, recall, FIX, EVAL)
    llm = LeylineLLM(Claude(model, logger), POLICY, recall=True)
    agent = BaseAgent(AgentArgs(system_prompt="You fix bugs.", max_steps=50), llm, logger)
    assert agent.run(env)["success"] is True
    blocks = [m["content"][0] for m in model.requests[2]["messages"] if m["role"] == "user"][1:]
    assert [(block["type"], len(block["content"]) < 200) for block in blocks] == [
        ("tool_result", True),
        ("tool_result", False),
    ]
    assert model.requests[0]["tools"][-1]["name"] == "leyline_recall"
    assert "199" in str(model.requests[3]["messages"][-1])
    assert not llm.leyline.bypassed
    spent = [response.token_usage.prompt for response in agent.history.llm_responses]
    assert spent == [100, 100, 200, 100]


def test_what_debug_gym_trims_is_what_is_left_of_the_view(env, llm_at, logger):
    model = DeterministicModel(*[LONG] * 6, FIX, EVAL)
    with serving(model) as url:
        inner = llm_at(url)
        inner.context_length = 1500
        args = {"system_prompt": "You fix bugs.", "leyline": {"policies": POLICY}, "max_steps": 50}
        agent = LeylineAgent(args, inner, logger)
        assert agent.run(env)["success"] is True
    assert [len(results(request["messages"])) for request in model.requests] == list(range(8))


def test_an_agent_without_policies_is_told(llm_at, monkeypatch):
    monkeypatch.delenv("LEYLINE_POLICIES", raising=False)
    with pytest.raises(leyline.LeylineError, match=r"agent\.leyline\.policies"):
        LeylineAgent({}, llm_at("http://127.0.0.1:9"))


def test_the_example_runs(run_example):
    run_example("debug_gym_agent.py")
