"""Recorded runs under real policies, with the embedded model's tokenizer, turn by turn."""

import pytest

from leyline_agent.directive import apply
from leyline_agent.edit import sift
from leyline_agent.policy import parse
from leyline_agent.readers import read
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.engine import Engine
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.turns import plan_chat
from leyline_agent.trajectory import Trajectory

pytestmark = pytest.mark.model

POLICIES = ("truncate_older_than:n=2,max_chars=200", "keep_last:n=5")
FILES = (
    "mini_swe_agent_pr_816",
    "openhands_llm_completions",
    "swe_agent_demos",
    "tau_bench_gpt_4o_airline",
)


@pytest.fixture(scope="module")
def chat(embedded_gguf):
    from leyline_agent.serving.models.load import load_tokenizer

    return ChatRenderer(load_tokenizer(embedded_gguf))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", FILES)
def test_the_directives_give_exactly_the_new_tokens(trajectories_dir, chat, talk, name, policy):
    [run] = read(trajectories_dir / "trajectories" / f"{name}.jsonl.gz", limit=1)
    assert follow(run.trajectory(), parse(policy), chat, talk, turns=25) > 0


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
def test_every_mini_swe_agent_run(trajectories_dir, chat, talk, policy):
    path = trajectories_dir / "trajectories" / "mini_swe_agent_pr_816.jsonl.gz"
    edited = [follow(run.trajectory(), parse(policy), chat, talk) for run in read(path)]
    assert len(edited) == 87
    assert sum(map(bool, edited)) > 80


def follow(run, policy, chat, talk, turns=10_000):
    """Play a run's turns; how many directives there were. Every prompt is checked."""
    service = ChatService(Engine.counting(1 << 18), "none", chat.tokenizer, chat)
    one = talk(service, view=[])
    seen = directives = 0
    places = [i for i, m in enumerate(run.messages) if m["role"] == "assistant" and i]
    for place in places[:turns]:
        new = run.messages[seen:place]
        before = Trajectory([*one.view, *new], observations=run.observations)
        edits, _ = sift(tuple(policy.edits(before)), before.messages)
        request, _ = one.request(new, edits, tools=list(run.tools) or None)
        if one.version:
            directives += check(one, chat, request)
        reply = run.messages[place]
        receipt, _ = one.turn(*new, edits=edits, reply=reply, tools=list(run.tools) or None)
        assert receipt.reason.value == "asked"
        seen = place + 1
    if places:  # what the replies are encoded as may differ, but not what they say
        tokens = one.sequence.tokens[: one.held.newest.prompt_len]
        assert chat.tokenizer.decode(tokens) == chat.text(one.view[:-1], request.shown_tools)
    return directives


def check(one, chat, request):
    """The turn's directives lead from the tokens held to those of the messages; how many."""
    commit = request.leyline
    planned = plan_chat(chat, request.messages, request.shown_tools, "", one.held, commit)
    prompt = planned.prompt
    assert prompt.tokens == chat.render(request.messages, request.shown_tools, one.held.replies)
    claimed = apply(one.sequence.tokens, [item.directive for item in prompt.items])
    assert claimed == prompt.tokens[: len(claimed)]
    assert len(claimed) + prompt.appended == len(prompt.tokens)
    assert all(item.edits for item in prompt.items)  # nothing changed that nobody declared
    assert sum(len(item.edits) for item in prompt.items) + len(planned.without) == len(commit.edits)
    return len(prompt.items)


@pytest.mark.parametrize("reply", ["\n\nI read the file", " \n x", "", "  "])
def test_a_reply_that_begins_with_a_blank_line_says_what_it_says(chat, talk, reply):
    """Encoded whole, its first newline would merge with the one that ends the prompt."""
    one = talk(ChatService(Engine.counting(1 << 14), "none", chat.tokenizer, chat))
    one.turn(reply=reply)
    said = one.sequence.tokens[one.held.newest.prompt_len :]
    assert chat.tokenizer.decode(said) == reply
    receipt, _ = one.turn({"role": "user", "content": "and now?"})
    assert receipt.edits == ()
