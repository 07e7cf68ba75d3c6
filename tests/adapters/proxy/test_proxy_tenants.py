"""Whose session it is: keys, names, histories."""

import concurrent.futures

import httpx
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response

from leyline_adapters.proxy.calls import tenant_of

CHAT = "/v1/chat/completions"
keys = st.binary(min_size=1, max_size=12).filter(
    lambda key: key.strip() == key and not key.lower().startswith(b"bearer")
)


@given(keys, keys)
def test_a_key_is_one_tenant_whatever_header_it_comes_in(one, other):
    forms = [
        (b"authorization", b"Bearer " + one),
        (b"authorization", b"bearer  " + one),
        (b"x-api-key", one),
        (b"api-key", one),
    ]
    assert len({tenant_of([form]) for form in forms}) == 1
    tenant = tenant_of(forms[:1])
    assert one not in tenant.encode() or len(one) < 4
    assert (tenant_of([(b"x-api-key", other)]) == tenant) == (one == other)


def test_no_key_is_a_tenant_too():
    assert tenant_of([(b"accept", b"x"), (b"authorization", b"Bearer "), (b"x-api-key", b"")]) == ""


def test_the_same_conversation_under_two_keys_is_two(proxy, task, turns):
    turns(proxy.client("a"), task, 2)
    turns(proxy.client("b"), task, 2)
    assert [session.version for session in proxy.all] == [2, 2]


def test_sessions_can_be_read_with_their_own_key_only(proxy, task, turns):
    turns(proxy.client("a", path="/s/run%2F1/v1"), task, 3)
    url = f"{proxy.url}/v1/leyline/sessions"
    mine, others = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
    [listed] = httpx.get(url, headers=mine).json()["data"]
    assert (listed["id"], listed["turns"], listed["edits"]) == ("run/1", 3, 1)
    shown = httpx.get(f"{url}/run%2F1", headers=mine).json()
    assert shown["history"] == 7
    assert len(shown["view"]) == 7
    assert len(shown["view"][3]["content"]) <= 60
    receipts = httpx.get(f"{url}/run%2F1/receipts", headers=mine).json()["data"]
    assert [receipt["version"] for receipt in receipts] == [1, 2, 3]
    for headers in (others, {}):
        assert httpx.get(url, headers=headers).json()["data"] == []
        answer = httpx.get(f"{url}/run%2F1", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_session")
        assert httpx.get(f"{url}/run%2F1/receipts", headers=headers).status_code == 404
    assert httpx.post(f"{url}/run%2F1/edits", headers=mine, json={}).status_code == 405


def test_interleaved_conversations_on_one_key(proxy, provider, task, turns, outputs):
    client = proxy.client()
    first, second = task, [task[0], {"role": "user", "content": "Write a test."}]
    for _ in range(4):
        first, second = turns(client, first, 1), turns(client, second, 1)
    assert [session.version for session in proxy.all] == [4, 4]
    for request in provider.requests[-2:]:
        assert [len(text) <= 60 for text in outputs(request)] == [True, True, False]


def test_one_task_tried_many_times_is_many_conversations(proxy, task, turns):
    client = proxy.client()
    tries = [turns(client, task, 1) for _ in range(5)]
    for _ in range(3):
        tries = [turns(client, messages, 1) for messages in tries]
    assert [session.version for session in proxy.all] == [4] * 5


def test_one_name_holds_conversations_apart(proxy, task, turns):
    client = proxy.client(default_headers={"Leyline-Session": "run"})
    helper = [{"role": "user", "content": "You are a helper."}]
    main, helper = turns(client, task, 2), turns(client, helper, 2)
    turns(client, main, 1)
    turns(client, helper, 1)
    assert [(s.id, s.version) for s in proxy.all] == [("run.2", 3), ("run", 3)]


def test_a_fork_is_a_branch(proxy, provider, task, turns, outputs):
    client = proxy.client()
    messages = turns(client, task, 3)
    turns(client, messages, 2)
    turns(client, [*messages[:-1], {**messages[-1], "content": "other " * 30}], 2)
    [session] = proxy.all
    assert session.stats().turns == 7
    assert [len(text) <= 60 for text in outputs(provider.requests[-1])] == [True] * 3 + [False]


def test_many_sessions_at_once(proxy, task, turns):
    def run(number):
        mine = [task[0], {"role": "user", "content": f"Task {number % 10}."}]
        return turns(proxy.client(f"key-{number % 3}"), mine, 4)

    with concurrent.futures.ThreadPoolExecutor(12) as threads:
        done = list(threads.map(run, range(36)))
    assert all(len(messages) == 10 for messages in done)
    assert sorted(session.version for session in proxy.all) == [4] * 36
    for session in proxy.all:
        ids = {m["tool_call_id"] for m in session.history if m["role"] == "tool"}
        assert len(ids) == 3


def test_the_one_unused_longest_goes(start, provider, task, turns):
    running = start(provider.url, max_sessions=2)
    client = running.client()
    tasks = [[task[0], {"role": "user", "content": f"Task {n}."}] for n in range(3)]
    begun = [turns(client, messages, 1) for messages in tasks]
    turns(client, begun[2], 1)
    turns(client, begun[0], 1)  # forgotten: it goes on in a new session
    assert [session.version for session in running.all] == [1, 2]
    assert len(running.all[0].history) == 5


def test_of_the_tenant_with_most_sessions_one_goes(start, provider, task, turns):
    running = start(provider.url, max_sessions=3)
    quiet = turns(running.client("quiet"), task, 1)
    for _ in range(6):
        turns(running.client("busy"), task, 1)
    turns(running.client("quiet"), quiet, 1)
    assert [session.version for session in running.all] == [2, 1, 1]


def test_a_key_that_never_works_leaves_nothing(start, task):
    running = start("http://127.0.0.1:9", adapter="openai", max_sessions=4)
    for number in range(8):
        headers = {"authorization": f"Bearer {number}"}
        httpx.post(running.url + CHAT, json={"messages": [3]}, headers=headers)
    assert len(running.sessions._pools) == 0
    for number in range(8):
        headers = {"authorization": f"Bearer {number}"}
        httpx.post(running.url + CHAT, json={"messages": task}, headers=headers)
    assert len(running.sessions._pools) == 4


def test_a_conversation_whose_calls_failed_is_not_the_next_ones(proxy, provider, task):
    async def refuse(request, body):
        return Response(b"{}", 503)

    good, provider.handle = provider.handle, refuse
    other = [task[0], {"role": "user", "content": "Write a test."}]
    first = httpx.post(proxy.url + CHAT, json={"messages": task})
    again = httpx.post(proxy.url + CHAT, json={"messages": task})
    assert first.headers["leyline-session"] == again.headers["leyline-session"]
    provider.handle = good
    answer = httpx.post(proxy.url + CHAT, json={"messages": other})
    assert answer.headers["leyline-version"] == "1"
    assert answer.headers["leyline-session"] != first.headers["leyline-session"]
    assert [session.stats().failed for session in proxy.all] == [0, 2]
