"""In front of a `leyline serve`: the proxy tells it of edits, and it splices."""

import openai
import pytest

from leyline_adapters.proxy.parts import Engine, Upstream

OUTPUT = "error in line 12: no such file or directory. " * 12


def talk(client, turns, **options):
    """An agent with plain-text observations; its own messages grow and are never edited."""
    messages = [
        {"role": "system", "content": "You are a careful programmer."},
        {"role": "user", "content": "Run the tests."},
    ]
    replies = []
    for number in range(turns):
        made = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=6, temperature=0, **options
        )
        if options.get("stream"):
            chunks = list(made)
            replies.append(chunks[-1])
            said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        else:
            replies.append(made)
            said = made.choices[0].message.content
        messages += [
            {"role": "assistant", "content": said},
            {"role": "user", "content": f"{number}: {OUTPUT}"},
        ]
    return replies


@pytest.fixture
def running(start, live_url):
    policy = "truncate_older_than:n=2,max_chars=60,mode=amortize"
    return start(live_url, policy, observations="user")


@pytest.mark.parametrize("stream", [False, True])
def test_edits_are_spliced(running, tiny_service, stream):
    named = {"Leyline-Session": "run"}
    client = running.client("key", default_headers=named)
    replies = talk(client, 6, **({"stream": True} if stream else {}))
    [session] = running.all
    assert session.adapter.name == "http"
    edited = [receipt for receipt in session.receipts if receipt.edits]
    assert len(edited) == 3
    assert all(receipt.reused_spliced > 0 for receipt in edited)
    assert all("leyline" not in (reply.model_extra or {}) for reply in replies)
    if not stream:
        assert replies[-1].usage.prompt_tokens == session.receipts[-1].prompt
    [key] = tiny_service.sessions._sessions
    assert key[1] == "run"


def test_receipts_come_from_the_engine(running):
    client = running.client("key", default_headers={"Leyline-Receipt": "yes"})
    *_, last = talk(client, 4)
    receipt = last.model_extra["leyline"]
    assert receipt["reused_spliced"] > 0
    assert receipt["prompt"] == last.usage.prompt_tokens
    *_, last = talk(
        running.client("other", default_headers={"Leyline-Receipt": "1"}), 4, stream=True
    )
    assert last.model_extra["leyline"]["reused_spliced"] > 0


def test_its_errors_come_back(running):
    client = running.client("key")
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "word " * 9000}]
        )
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="x", messages=[{"role": "user", "content": "hi"}])
    # Two conversations; neither begins in what the other's failure left behind.
    assert [session.version for session in running.all] == [0, 0]


async def test_it_is_told_from_others(live_url, provider):
    async with Upstream(live_url) as upstream:
        assert await upstream.is_leyline() is True
    async with Upstream(provider.url) as upstream:
        engine = Engine(upstream)
        await engine.look()
        assert engine.name == "openai"
