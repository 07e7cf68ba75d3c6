"""mini-swe-agent's agent on scripted models; it is imported where it is installed."""

from leyline_agent.testing import DeterministicModel, tool_call

POLICY = "truncate_older_than:n=1,max_chars=60"
SUBMIT = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo done"
LONG = "seq 1 200"
TEMPLATES = {"system_template": "You fix bugs.", "instance_template": "Task: {{task}}"}


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
