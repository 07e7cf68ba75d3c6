"""OpenHands' own agent, conversation, tools and LLM, through whole episodes."""

import warnings
from collections.abc import Sequence

import pytest
from model_server import Refused, serving

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, tool_call

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from openhands.sdk import LLM, Agent, Conversation, Tool, ToolDefinition, register_tool
    from openhands.sdk.context.condenser import PipelineCondenser
    from openhands.sdk.context.condenser.base import CondenserBase
    from openhands.sdk.context.view import View
    from openhands.sdk.conversation.exceptions import ConversationRunError
    from openhands.sdk.event import MessageEvent, ObservationEvent
    from openhands.sdk.event.condenser import Condensation
    from openhands.sdk.llm import Message, TextContent
    from openhands.sdk.tool import Action, Observation, ToolExecutor

    from leyline_adapters.harnesses.openhands import MAX_OPEN, LeylineCondenser

pytestmark = pytest.mark.filterwarnings("default")  # OpenHands' and its libraries' own

POLICY = "truncate_older_than:n=1,max_chars=60"
NUM_CALLS = 4


class RunAction(Action):
    number: int


class RunObservation(Observation):
    pass


class Runner(ToolExecutor):
    def __call__(self, action, conversation=None):
        text = f"output {action.number}\n" + f"line of output {action.number}\n" * 40
        return RunObservation.from_text(text)


class RunTool(ToolDefinition[RunAction, RunObservation]):
    name = "run"

    @classmethod
    def create(cls, conv_state=None, **params) -> Sequence["RunTool"]:
        return [
            cls(
                description="Run the program.",
                action_type=RunAction,
                observation_type=RunObservation,
                executor=Runner(),
            )
        ]


register_tool("RunTool", RunTool)


def run(number, **options):
    return tool_call("run", content="I run it.", number=number, **options)


def script(*replies):
    return DeterministicModel(*[run(n) for n in range(NUM_CALLS)], *replies, "Done.")


@pytest.fixture
def start(tmp_path):
    """A conversation with an agent on a model's server."""

    def start(url, condenser, **options):
        llm = LLM(
            model="openai/scripted", base_url=url, api_key="none", num_retries=2,
            retry_min_wait=0, retry_max_wait=0, usage_id="agent",
        )  # fmt: skip
        agent = Agent(llm=llm, tools=[Tool(name="RunTool")], condenser=condenser)
        conversation = Conversation(agent, workspace=tmp_path / "work", visualizer=None, **options)
        conversation.send_message("Run it.")
        return conversation

    return start


def text_of(message):
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


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


def observed(conversation):
    events = [e for e in conversation.state.events if isinstance(e, ObservationEvent)]
    return [len(e.observation.text) > 500 for e in events]


def test_an_episode_is_edited_on_the_way_and_its_events_are_not(start, check):
    model = script()
    with serving(model) as url:
        conversation = start(url, condenser := LeylineCondenser(POLICY))
        conversation.run()
    check(list(map(as_sent, model.requests)))
    assert observed(conversation) == [True] * NUM_CALLS
    condenser.settle()
    (session,) = condenser.leyline.sessions
    assert session.stats().edits == NUM_CALLS - 1
    usages = conversation.agent.llm.metrics.token_usages
    assert [r.prompt for r in session.receipts] == [u.prompt_tokens for u in usages]
    assert [r.reused for r in session.receipts] == [u.cache_read_tokens for u in usages]
    assert sum(r.reused for r in session.receipts) > 0


async def test_an_awaited_episode_is_edited_too(start, check):
    model = script()
    with serving(model) as url:
        conversation = start(url, LeylineCondenser(POLICY))
        await conversation.arun()
    check(list(map(as_sent, model.requests)))


def test_without_edits_the_requests_are_those_of_openhands_itself(start):
    asked = []
    for condenser in (None, LeylineCondenser("keep_all")):
        model = script()
        with serving(model) as url:
            start(url, condenser).run()
        asked.append([as_sent(request) for request in model.requests])
    assert asked[0] == asked[1]


def test_the_calls_of_one_reply_stay_together(start):
    both = {**run(0, id="a"), "tool_calls": [run(0, id="a")["tool_calls"][0]]}
    both["tool_calls"] += run(1, id="b")["tool_calls"]
    model = DeterministicModel(both, run(2), "Done.")
    with serving(model) as url:
        start(url, LeylineCondenser(POLICY)).run()
    sent = as_sent(model.requests[-1])
    assert [ids for role, _, ids in sent if role == "assistant"][0] == "a b"
    assert [(ids, len(text) < 200) for role, text, ids in sent if role == "tool"][:2] == [
        ("a", True),
        ("b", True),
    ]


def test_an_edited_call_keeps_its_result(start):
    model = DeterministicModel(*[run(n, note="x" * 400) for n in range(3)], "Done.")

    @leyline.policy
    def shorten(trajectory):
        for call in trajectory.tool_calls[:-1]:
            message = trajectory.messages[call.index]
            if "x" in str(call.raw_arguments):
                function = {"name": "run", "arguments": '{"number": 0}'}
                edited = {**message["tool_calls"][0], "function": function}
                yield leyline.Edit(
                    call.index, call.index + 1, ({**message, "tool_calls": [edited]},)
                )

    with serving(model) as url:
        start(url, LeylineCondenser(shorten)).run()
    calls = [c for m in model.requests[-1]["messages"] for c in m.get("tool_calls") or ()]
    assert ["xxx" in call["function"]["arguments"] for call in calls] == [False, False, True]


class ForgetFirst(CondenserBase):
    """Once there are enough events, forgets some for good."""

    def condense(self, view, agent_llm=None):
        if len(view.events) < 8 or any("summary" in e.id for e in view.events):
            return view
        forgotten = {event.id for event in view.events[2:4]}
        return Condensation(
            forgotten_event_ids=forgotten,
            summary="I ran it.",
            summary_offset=2,
            llm_response_id="x",
        )


def test_condensations_of_another_condenser_are_followed(start):
    model = script()
    with serving(model) as url:
        pipeline = PipelineCondenser(condensers=[ForgetFirst(), LeylineCondenser(POLICY)])
        start(url, pipeline).run()
    sent = as_sent(model.requests[-1])
    assert "I ran it." in str(sent)
    results = [len(text) < 200 for role, text, _ in sent if role == "tool"]
    assert results == [True, True, False]


def test_an_error_of_the_provider_reaches_the_user_and_is_no_turn(start):
    model = DeterministicModel(run(0), Refused(401))
    with serving(model) as url:
        conversation = start(url, condenser := LeylineCondenser(POLICY))
        with pytest.raises(ConversationRunError):
            conversation.run()
    condenser.settle()
    (session,) = condenser.leyline.sessions
    assert (len(session.receipts), session.stats().failed) == (1, 1)


def test_the_llm_s_retries_are_one_turn(start, check):
    model = script(Refused(500))
    with serving(model) as url:
        conversation = start(url, condenser := LeylineCondenser(POLICY))
        conversation.run()
    condenser.settle()
    assert len(condenser.leyline.sessions[0].receipts) == NUM_CALLS + 1
    assert as_sent(model.requests[-1]) == as_sent(model.requests[-2])


def test_a_conversation_on_disk_is_gone_on_with(start, tmp_path):
    import uuid

    options = {"persistence_dir": tmp_path / "kept", "conversation_id": uuid.uuid4()}
    for _ in range(2):
        model = script()
        with serving(model) as url:
            condenser = LeylineCondenser(POLICY, mode_floor="forget", observers=[])
            conversation = start(url, condenser, delete_on_close=False, **options)
            conversation.run()
            conversation.close()
    results = [len(text) < 200 for role, text, _ in as_sent(model.requests[-1]) if role == "tool"]
    assert results == [True] * (2 * NUM_CALLS - 1) + [False]
    revived = LeylineCondenser.model_validate(condenser.model_dump(mode="json"))
    assert (revived.policies, revived.options) == (POLICY, {"mode_floor": "forget"})


def test_conversations_that_ended_are_settled_in_the_end():
    condenser = LeylineCondenser(POLICY)
    for number in range(2 * MAX_OPEN):
        said = Message(role="user", content=[TextContent(text=f"Run {number}.")])
        condenser.condense(View(events=[MessageEvent(source="user", llm_message=said)]))
    waiting = [session for session in condenser.leyline.sessions if session.version == 0]
    assert len(waiting) == MAX_OPEN


def test_an_option_that_does_not_fit_is_told():
    with pytest.raises(TypeError, match="no option 'mode_flor'"):
        LeylineCondenser(POLICY, mode_flor="forget")


def test_the_example_runs(run_example):
    run_example("openhands_conversation.py")
