"""mini-swe-agent's own agent, environment and models, through whole episodes."""

import copy

import pytest
from model_server import Refused, serving

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

POLICY = "truncate_older_than:n=1,max_chars=60"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo done"
LONG = "seq 1 200"
TEMPLATES = {"system_template": "You fix bugs.", "instance_template": "Task: {{task}}"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("MSWEA_COST_TRACKING", "ignore_errors")
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)


def bash(command, **options):
    return tool_call("bash", command=command, **options)


def episode(*commands):
    """A script that runs the commands and submits."""
    return DeterministicModel(*[bash(command) for command in commands], bash(SUBMIT))


def litellm_model(url):
    from minisweagent.models.litellm_model import LitellmModel

    options = {"api_base": url, "api_key": "none", "num_retries": 0}
    return LitellmModel(
        model_name="openai/scripted", model_kwargs=options, cost_tracking="ignore_errors"
    )


def agent_of(model):
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.environments.local import LocalEnvironment

    return DefaultAgent(model, LocalEnvironment(), **TEMPLATES)


def managed(url, policies=POLICY, adapter=None, **options):
    from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

    return LeylineModel(litellm_model(url), policies, adapter, **options)


def pairs(messages):
    """Whether every tool result stands behind its call, and every call has its result."""
    called = []
    for message in messages:
        if message["role"] == "tool":
            assert message["tool_call_id"] in called
            called.remove(message["tool_call_id"])
            continue
        assert not called
        called = [call["id"] for call in message.get("tool_calls") or ()]
    return not called


def contents(messages, role="tool"):
    return [message["content"] for message in messages if message["role"] == role]


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
    assert told["policies"] == POLICY
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


def test_a_configuration_without_policies_is_told(monkeypatch):
    from leyline_adapters.harnesses.mini_swe_agent import LeylineModel

    monkeypatch.delenv("LEYLINE_POLICIES", raising=False)
    with pytest.raises(leyline.LeylineError, match=r"model\.leyline\.policies"):
        LeylineModel(model_name="openai/scripted")


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


class Conversation:
    """A harness of few scruples: it sends what it likes to a managed model."""

    def __init__(self, url):
        self.model = managed(url)
        self.messages = [
            {"role": "system", "content": "You fix bugs."},
            {"role": "user", "content": "Task: count"},
        ]

    def turn(self, output="line\n" * 100):
        message = self.model.query(self.messages)
        call = message["tool_calls"][0]["id"]
        result = {"role": "tool", "tool_call_id": call, "content": output}
        self.messages += [message, result]

    @property
    def session(self):
        (session,) = self.model.leyline.sessions
        return session


@pytest.fixture
def talk():
    script = DeterministicModel(lambda messages: bash(f"ls {len(messages)}"), repeat=True)
    with serving(script) as url:
        conversation = Conversation(url)
        for _ in range(4):
            conversation.turn()
        yield conversation, script
    assert not conversation.model.leyline.bypassed
    assert all(pairs(request["messages"]) for request in script.requests[:-1])


def stubs(request):
    return [len(content) < 100 for content in contents(request["messages"])]


def test_a_history_that_was_rewritten_is_followed(talk):
    conversation, script = talk
    conversation.messages[3] = {**conversation.messages[3], "content": "rewritten " * 50}
    conversation.turn()
    assert stubs(script.requests[-1]) == [True, True, True, False]
    assert contents(script.requests[-1]["messages"])[0].startswith("rewritten")
    assert pairs(script.requests[-1]["messages"])
    assert conversation.session.history[3]["content"] == "rewritten " * 50


def test_a_history_that_lost_messages_is_followed(talk):
    conversation, script = talk
    del conversation.messages[2:6]
    conversation.turn()
    assert stubs(script.requests[-1]) == [True, False]
    assert pairs(script.requests[-1]["messages"])


def test_our_own_view_coming_back_is_no_rewrite(talk):
    conversation, script = talk
    conversation.messages = [*script.requests[-1]["messages"], *conversation.messages[-2:]]
    conversation.turn()
    assert conversation.session.version == 5
    assert len(contents(conversation.session.history)[0]) == 500


def test_two_futures_of_one_past_do_not_mix(talk):
    conversation, script = talk
    past = list(conversation.messages)
    conversation.turn("one future " * 40)
    one = conversation.messages
    conversation.messages = past
    conversation.turn("another future " * 40)
    conversation.turn()
    conversation.messages = one
    conversation.turn()
    assert "another" not in str(script.requests[-1]["messages"])
    assert contents(script.requests[-1]["messages"])[-1].startswith("one future")
    assert pairs(script.requests[-1]["messages"])


def test_the_same_call_again_sends_the_same(talk):
    conversation, script = talk
    before = copy.deepcopy(conversation.messages)
    for _ in range(3):
        conversation.model.query(conversation.messages)
    assert script.requests[-1] == script.requests[-2] == script.requests[-3]
    assert conversation.messages == before


def test_a_call_without_its_result_goes_out_as_it_is(talk):
    conversation, script = talk
    cut = conversation.messages[:-1]
    conversation.model.query(cut)
    assert not pairs(script.requests[-1]["messages"])
    assert stubs(script.requests[-1]) == [True, True, False]
    assert any(
        "no result" in str(odd) or "unanswered" in str(odd) for odd in conversation.session.oddities
    )


def test_images_go_through(talk):
    conversation, script = talk
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    conversation.messages.append({"role": "user", "content": [image]})
    conversation.turn()
    assert script.requests[-1]["messages"][-1]["content"] == [image]


@pytest.mark.filterwarnings("ignore:There is no current event loop")  # litellm's own
def test_what_is_no_message_goes_out_unedited_and_is_told():
    script = DeterministicModel(bash("ls"))
    with serving(script) as url:
        model = managed(url)
        with pytest.warns(leyline.LeylineWarning, match="goes out unedited"):
            model.query([{"role": "user", "content": "hello"}, {"content": "no role"}])
    assert len(model.leyline.bypassed) == 1
