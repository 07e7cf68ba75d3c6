"""What harnesses and users do to a proxy: the agent goes on, the reason is told."""

import gzip
import json
import warnings

import httpx
import openai
import pytest
from starlette.responses import Response

from leyline_agent import LeylineWarning, Policy
from leyline_agent.journal import load

CHAT = "/v1/chat/completions"


def post(running, messages, headers=None, **fields):
    body = {"model": "m", "messages": messages, **fields}
    return httpx.post(running.url + CHAT, json=body, headers=headers or {}, timeout=10)


BODIES = {
    "no JSON": b"{",
    "no object": b"[]",
    "no messages": b'{"model": "m"}',
    "messages that are none": b'{"messages": [3]}',
    "no list": b'{"messages": "hello"}',
    "a message without a role": b'{"messages": [{"content": "x"}]}',
    "a field of ours": b'{"messages": [{"role": "user", "content": "x"}], "leyline": {}}',
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_no_turn_goes_through_with_the_reason(proxy, provider, body):
    async def refuse(request, body):
        return Response(b"no", 422)

    provider.handle = refuse
    answer = httpx.post(proxy.url + CHAT, content=body)
    assert (answer.status_code, answer.content) == (422, b"no")
    assert answer.headers["leyline-bypassed"]
    assert provider.bodies == [body]


@pytest.mark.parametrize(
    "content",
    [b"<html>", b'{"object": "odd"}', b'{"choices": []}', b'{"error": {"code": 3}}'],
)
def test_an_answer_that_is_no_reply(proxy, provider, task, content):
    async def handle(request, body):
        return Response(content, 200, media_type="application/json")

    provider.handle = handle
    answer = post(proxy, task)
    assert (answer.status_code, answer.content) == (200, content)
    assert "no reply" in answer.headers["leyline-reason"]
    [session] = proxy.all
    assert (session.version, session.stats().failed) == (0, 1)


def test_an_answer_that_is_compressed_all_the_same(proxy, provider, task, turns, outputs):
    async def handle(request, body):
        made = json.dumps(provider.model.create(**json.loads(body))).encode()
        headers = {"content-encoding": "gzip"}
        return Response(gzip.compress(made), 200, headers, "application/json")

    provider.handle = handle
    messages = turns(proxy.client(), task, 3)
    answer = post(proxy, messages, {"authorization": "Bearer key-a"})
    assert "compressed" in answer.headers["leyline-reason"]
    [session] = proxy.all
    assert (session.version, session.stats().failed) == (4, 0)
    assert [len(text) <= 60 for text in outputs(provider.requests[-1])] == [True, True, False]


def test_a_client_that_waits_to_be_told_to_go_on(proxy, provider, task):
    answer = post(proxy, task, {"Expect": "100-continue"})
    assert answer.status_code == 200
    assert "expect" not in provider.heads[-1]


def test_odd_messages_are_turns(proxy, provider, task, turns):
    messages = turns(proxy.client(), task, 3)
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    odd = [
        {"role": "user", "content": [{"type": "text", "text": "See"}, image]},
        {"role": "user", "content": [{"type": "x_unknown", "x": 1}]},
        {"role": "critic", "content": "Hm."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "open", "type": "function",
         "function": {"name": "bash", "arguments": "{}"}}]},
    ]  # fmt: skip
    answer = post(proxy, [*messages, *odd], {"authorization": "Bearer key-a"})
    assert answer.headers["leyline-version"] == "4"
    assert provider.requests[-1]["messages"][-4:] == odd
    [session] = proxy.all
    kinds = {odd.kind for odd in session.oddities}
    assert kinds == {"UnknownContent", "UnknownRole", "UnansweredCall"}


def test_rewritten_and_shortened_histories_go_on(proxy, provider, task, turns, outputs):
    client = proxy.client()
    messages = turns(client, task, 5)
    [session] = proxy.all
    rewritten = [*messages[:6], {"role": "user", "content": "Try something else."}]
    turns(client, rewritten, 1)
    turns(client, [*messages[:2], *messages[6:]], 1)  # the front was dropped
    turns(client, messages, 1)  # and the whole is back
    assert proxy.all == [session]
    assert session.stats().turns == 8
    assert len(outputs(provider.requests[-1])) == 5
    assert [len(text) <= 60 for text in outputs(provider.requests[-1])] == [True] * 4 + [False]


class Broken(Policy):
    """Raises."""

    def edits(self, trajectory):
        raise ZeroDivisionError


def test_a_policy_that_raises_costs_its_edits_only(start, provider, task, turns):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LeylineWarning)
        running = start(provider.url, [Broken(), "truncate_older_than:n=1,max_chars=60"])
        messages = turns(running.client(), task, 2)
        answer = post(running, messages, {"authorization": "Bearer key-a"})
    assert answer.headers["leyline-edits"] == "1"
    assert answer.headers["leyline-skipped"] == "broken: ZeroDivisionError"


def test_a_journal_that_cannot_be_written(start, provider, task, tmp_path):
    folder = tmp_path / "journal"
    folder.write_text("a file")
    running = start(provider.url, journal=folder)
    answer = post(running, task)
    assert answer.status_code == 200
    assert f"{folder} is a file" in answer.headers["leyline-bypassed"]


def test_the_journal_tells_the_reason(start, provider, task, tmp_path, turns):
    running = start(provider.url, journal=tmp_path)
    client = running.client(default_headers={"Leyline-Session": "run/1"})
    messages = turns(client, task, 2)

    async def refuse(request, body):
        return Response(b"{}", 429)

    provider.handle = refuse
    with pytest.raises(openai.RateLimitError):
        turns(client, messages, 1)
    assert running.all  # its turns are over
    [file] = tmp_path.rglob("*.jsonl")
    assert file.name == "run%2F1.jsonl"
    events = load(file).events
    assert [e["event"] for e in events if e["event"] in ("commit", "fail")] == [
        "commit", "commit", "fail",
    ]  # fmt: skip
    assert events[-1]["error"] == "the upstream answered 429"


def test_a_named_session_outlives_the_proxy(start, provider, task, tmp_path, turns, outputs):
    for _ in range(2):
        running = start(provider.url, journal=tmp_path)
        client = running.client(default_headers={"Leyline-Session": "run"})
        task = turns(client, task, 2)
    [session] = running.all
    assert session.version == 4
    assert [len(text) <= 60 for text in outputs(provider.requests[-1])] == [True, True, False]


def test_a_journal_that_is_corrupt_begins_anew(start, provider, task, tmp_path, turns):
    running = start(provider.url, journal=tmp_path)
    named = {"default_headers": {"Leyline-Session": "run"}}
    turns(running.client(**named), task, 1)
    assert running.all  # its turns are over
    [file] = tmp_path.rglob("*.jsonl")
    file.write_text("nonsense\n")
    again = start(provider.url, journal=tmp_path)
    turns(again.client(**named), task, 1)
    assert again.all[0].version == 1
    assert file.read_text() == "nonsense\n"
    assert len(list(tmp_path.rglob("*.jsonl"))) == 2


@pytest.mark.parametrize("name", ["x" * 101, "a%07b"])
def test_a_name_that_is_none(proxy, provider, task, name):
    answer = httpx.post(f"{proxy.url}/s/{name}{CHAT}", json={"messages": task})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_session"
    assert provider.bodies == []


def test_keys_are_never_logged(proxy, provider, task, caplog):
    caplog.set_level(0)
    headers = {"authorization": "Bearer sk-secret", "x-api-key": "sk-secret"}
    post(proxy, task, headers)
    post(proxy, [3], headers)
    text = caplog.text + json.dumps([s.view for s in proxy.all]) + repr(proxy.sessions._pools)
    assert "unedited" in caplog.text
    assert "sk-secret" not in text
