"""mini-swe-agent's own agent, environment and models, through whole episodes."""

import json

import pytest
from mini_swe_runs import (
    LONG,
    POLICY,
    SUBMIT,
    agent_of,
    bash,
    contents,
    episode,
    litellm_model,
    managed,
    pairs,
)
from model_server import Refused, serving

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, MockAdapter


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("MSWEA_COST_TRACKING", "ignore_errors")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)


def test_an_episode_is_submitted_and_its_record_stays_whole():
    script = episode(LONG, LONG, "ls")
    with serving(script) as url:
        agent = agent_of(model := managed(url))
        result = agent.run("count")
    assert result == {"exit_status": "Submitted", "submission": "done\n"}
    assert all("200" in content for content in contents(agent.messages)[:2])
    assert all(len(content) > 600 for content in contents(agent.messages)[:2])
    seen = [request["messages"] for request in script.requests]
    assert all(map(pairs, seen))
    assert len(contents(seen[2])[0]) < 100
    assert len(contents(seen[2])[1]) > 600
    assert [len(content) < 100 for content in contents(seen[3])] == [True, True, True]
    assert not any("extra" in message for view in seen for message in view)
    (session,) = model.leyline.sessions
    assert [receipt.prompt for receipt in session.receipts] == [
        message["extra"]["response"]["usage"]["prompt_tokens"]
        for message in agent.messages
        if message["role"] == "assistant"
    ]
    assert session.stats().edits == 2


def test_the_view_is_stable_between_edits():
    script = episode(*[LONG] * 5)
    with serving(script) as url:
        agent_of(managed(url)).run("count")
    seen = [request["messages"] for request in script.requests]
    for before, after in zip(seen, seen[1:], strict=False):
        same = [a == b for a, b in zip(before, after, strict=False)]
        assert same.count(False) <= 1  # the result that has just become old


def test_without_edits_the_requests_are_those_of_the_inner_model():
    asked = []
    for wrap in (managed, lambda url, policies: litellm_model(url)):
        script = episode(LONG, "ls")
        with serving(script) as url:
            agent_of(wrap(url, policies="keep_all")).run("count")
        asked.append(script.requests)
    assert asked[0] == asked[1]


def test_the_agent_s_file_says_what_its_messages_were_edited_by(tmp_path):
    with serving(episode("ls")) as url:
        agent = agent_of(model := managed(url))
        agent.run("count")
        saved = agent.save(tmp_path / "run.traj.json")
    told = saved["info"]["config"]["leyline"]
    assert (told["policies"], told["adapter"]) == (POLICY, "openai")
    assert told["sessions"] == [model.leyline.sessions[0].id]
    assert saved["info"]["config"]["model"]["model_name"] == "openai/scripted"


@pytest.mark.parametrize("way", ["config", "environment"])
def test_the_stock_command_line_takes_the_model_by_its_path(way, monkeypatch, tmp_path):
    from minisweagent.run.mini import app
    from typer.testing import CliRunner

    script = episode(LONG, LONG)
    settings = [f"model.leyline.policies={POLICY}"] if way == "config" else []
    if way == "environment":
        monkeypatch.setenv("LEYLINE_POLICIES", POLICY)
    with serving(script) as url:
        settings += [
            "mini.yaml",
            "model.model_class=leyline_adapters.harnesses.mini_swe_agent.LeylineModel",
            "model.model_name=openai/scripted",
            f"model.model_kwargs.api_base={url}",
            "model.model_kwargs.api_key=none",
            f"model.leyline.journal={tmp_path / 'journals'}",
        ]
        given = [word for setting in settings for word in ("-c", setting)]
        done = CliRunner().invoke(
            app, ["-t", "count", "-y", "--exit-immediately", *given, "-o", str(tmp_path / "o.json")]
        )
    assert done.exit_code == 0, done.output
    assert len(script.requests) == 3
    assert len(contents(script.requests[2]["messages"])[0]) < 100
    assert len(list((tmp_path / "journals").iterdir())) == 1


def test_the_stock_benchmark_runner_takes_it_too(tmp_path):
    """`mini-extra swebench` on a data set of one instance."""
    from minisweagent.run.benchmarks.swebench import app
    from typer.testing import CliRunner

    (tmp_path / "data").mkdir()
    instance = {"instance_id": "count-1", "problem_statement": "count"}
    (tmp_path / "data" / "test.jsonl").write_text(json.dumps(instance))
    script = episode(LONG, LONG)
    with serving(script) as url:
        settings = [
            "swebench.yaml",
            "model.model_class=leyline_adapters.harnesses.mini_swe_agent.LeylineModel",
            "model.model_name=openai/scripted",
            f"model.model_kwargs.api_base={url}",
            "model.model_kwargs.api_key=none",
            f"model.leyline.policies={POLICY}",
            f"environment.cwd={tmp_path}",
        ]
        given = [word for setting in settings for word in ("-c", setting)]
        where = ["--subset", str(tmp_path / "data"), "--split", "test", "-o", str(tmp_path / "out")]
        done = CliRunner().invoke(app, [*where, "--environment-class", "local", *given])
    assert done.exit_code == 0, done.output
    predictions = json.loads((tmp_path / "out" / "preds.json").read_text())
    assert predictions["count-1"]["model_patch"] == "done\n"
    assert len(contents(script.requests[2]["messages"])[0]) < 100


def test_a_configuration_without_policies_is_told(monkeypatch):
    from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

    monkeypatch.delenv("LEYLINE_POLICIES", raising=False)
    with pytest.raises(leyline.LeylineError, match=r"model\.leyline\.policies"):
        LeylineModel(model_name="openai/scripted")
    made = LeylineModel(policies=POLICY, model_name="openai/scripted")
    assert str(made.leyline.policy) == POLICY


def test_a_refused_reply_is_on_record_and_the_run_goes_on():
    script = DeterministicModel(bash(LONG), "I am done.", bash(LONG), bash(SUBMIT))
    with serving(script) as url:
        agent = agent_of(model := managed(url))
        assert agent.run("count")["exit_status"] == "Submitted"
    assert [message.get("extra", {}).get("interrupt_type") for message in agent.messages].count(
        "FormatError"
    ) == 1
    (session,) = model.leyline.sessions
    assert len(session.receipts) == 4
    assert session.stats().failed == 0
    assert all(pairs(request["messages"]) for request in script.requests)


def test_an_error_of_the_provider_reaches_the_user_and_is_no_turn(monkeypatch):
    import litellm

    monkeypatch.setenv("MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT", "1")
    script = DeterministicModel(bash("ls"), Refused(500))
    with serving(script) as url:
        agent = agent_of(model := managed(url))
        with pytest.raises(litellm.InternalServerError):
            agent.run("count")
    assert agent.messages[-1]["extra"]["exit_status"] == "InternalServerError"
    (session,) = model.leyline.sessions
    assert (len(session.receipts), session.stats().failed) == (1, 1)


def test_the_inner_model_s_retries_are_one_turn():
    script = DeterministicModel(bash(LONG), Refused(500), Refused(503), bash(SUBMIT))
    with serving(script) as url:
        agent = agent_of(model := managed(url))
        assert agent.run("count")["exit_status"] == "Submitted"
    (session,) = model.leyline.sessions
    assert len(session.receipts) == 2
    assert session.version == 2


def test_an_engine_of_ours_answers_in_the_model_s_place():
    adapter = MockAdapter(episode(LONG, LONG, LONG))
    policy = POLICY.replace("n=1", "n=2")
    agent = agent_of(model := managed("http://nowhere", policy, adapter=adapter))
    assert agent.run("count")["exit_status"] == "Submitted"
    (session,) = model.leyline.sessions
    assert len(session.receipts) == 4
    assert session.receipts[-1].reused_spliced > 0
    assert agent.cost == 0.0


def recall(messages):
    """A reply that asks for the first output cut, by the id that its stub names."""
    stub = next(text for text in contents(messages) if "leyline_recall(" in text)
    arguments = json.dumps({"id": stub.split('leyline_recall("')[1].split('"')[0]})
    call = {"type": "function", "function": {"name": "leyline_recall", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_what_was_cut_is_recalled_behind_the_agent_s_back():
    script = DeterministicModel(bash(LONG), bash(LONG), recall, bash("ls"), bash(SUBMIT))
    with serving(script) as url:
        agent = agent_of(model := managed(url, recall=True))
        assert agent.run("count")["exit_status"] == "Submitted"
    assert not model.leyline.bypassed
    names = [tool["function"]["name"] for tool in script.requests[0]["tools"]]
    assert names == ["bash", "leyline_recall"]
    assert all(request["tools"] == script.requests[0]["tools"] for request in script.requests)
    shown = script.requests[3]["messages"]
    assert pairs(shown)
    assert "199" in contents(shown)[-1]
    assert len(contents(shown)[-1]) > 600
    assert "leyline_recall" not in str([message.get("tool_calls") for message in agent.messages])
    assert len(contents(agent.messages)) == 3
    (session,) = model.leyline.sessions
    assert session.stats().failed == 0


def test_the_agent_pays_for_what_is_recalled(monkeypatch):
    from minisweagent.models.litellm_model import LitellmModel

    monkeypatch.setattr(LitellmModel, "_calculate_cost", lambda self, response: {"cost": 0.25})
    script = DeterministicModel(bash(LONG), bash(LONG), recall, bash(SUBMIT))
    with serving(script) as url:
        agent = agent_of(managed(url, recall=True))
        agent.run("count")
    assert (agent.cost, agent.n_calls) == (1.0, 3)


def test_a_recall_in_a_reply_that_is_refused_is_hidden_all_the_same():
    both = bash("ls")
    script = DeterministicModel(
        bash(LONG),
        bash(LONG),
        lambda messages: {
            **both,
            "tool_calls": recall(messages)["tool_calls"] + both["tool_calls"],
        },
        bash(SUBMIT),
    )
    with serving(script) as url:
        agent = agent_of(managed(url, recall=True))
        assert agent.run("count")["exit_status"] == "Submitted"
    assert not any(m.get("extra", {}).get("interrupt_type") for m in agent.messages)
    assert "leyline_recall" not in str([message.get("tool_calls") for message in agent.messages])
    assert all(pairs(request["messages"]) for request in script.requests)


def test_an_engine_of_ours_stands_in_for_litellm_only():
    from minisweagent.models.test_models import DeterministicToolcallModel

    from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

    model = LeylineModel(DeterministicToolcallModel(outputs=[]), POLICY, MockAdapter())
    with pytest.raises(leyline.AdapterError, match="DeterministicToolcallModel"):
        model.query([{"role": "user", "content": "hello"}])


def test_a_model_that_writes_its_calls_as_text_is_read_as_it_writes():
    from minisweagent.models.litellm_textbased_model import LitellmTextbasedModel

    from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

    said = [
        f"I run it.\n```mswea_bash_command\n{command}\n```" for command in [LONG] * 3 + [SUBMIT]
    ]
    script = DeterministicModel(*said)
    with serving(script) as url:
        inner = LitellmTextbasedModel(**litellm_model(url).config.model_dump())
        agent = agent_of(LeylineModel(inner, POLICY))
        assert agent.run("count")["exit_status"] == "Submitted"
    results = contents(script.requests[3]["messages"], "user")[1:]
    assert [len(content) < 100 for content in results] == [True, True, False]
    assert "tools" not in script.requests[3]


def test_a_model_of_the_responses_api_is_edited_in_its_own_items():
    from minisweagent.models.test_models import (
        DeterministicResponseAPIToolcallModel,
        make_response_api_output,
    )

    from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

    commands = [LONG, LONG, SUBMIT]
    outputs = [
        make_response_api_output("I run it.", [{"command": command, "tool_call_id": f"c{place}"}])
        for place, command in enumerate(commands)
    ]
    inner = DeterministicResponseAPIToolcallModel(outputs=outputs)
    asked = []
    query = inner.query
    inner.query = lambda messages, **kwargs: asked.append(messages) or query(messages, **kwargs)
    agent = agent_of(model := LeylineModel(inner, POLICY))
    assert agent.run("count")["exit_status"] == "Submitted"
    results = [item for item in asked[2] if item.get("type") == "function_call_output"]
    assert [len(item["output"]) < 100 for item in results] == [True, False]
    assert [item["call_id"] for item in results] == ["c0", "c1"]
    recorded = [item for item in agent.messages if item.get("type") == "function_call_output"]
    assert all(len(item["output"]) > 600 for item in recorded)
    assert asked[2][2] is agent.messages[2]
    (session,) = model.leyline.sessions
    assert session.history[2]["tool_calls"][0]["function"]["name"] == "bash"


def test_the_example_runs(run_example):
    run_example("mini_swe_agent_run.py")
