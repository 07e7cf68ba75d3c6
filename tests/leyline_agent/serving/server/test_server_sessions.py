"""Sessions over HTTP: commits, edits ahead, directives, forgetting, tenants."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from chat_texts import STUB, TASK

from leyline_agent.lowering import common_prefix, common_suffix
from leyline_agent.message import digest, view_digest
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService

CHAT = "/v1/chat/completions"
SESSION = "/v1/leyline/sessions/run"
NEXT = {"role": "user", "content": "Now read the file again and run the tests."}


class Conversation:
    """A client of one session: it keeps the view and counts the versions."""

    def __init__(self, client: httpx.AsyncClient, **headers: str) -> None:
        self.client = client
        self.headers = headers
        self.view: list[dict[str, Any]] = [*TASK]
        self.version = 0

    async def send(self, edits: tuple[dict[str, Any], ...] = (), **more: Any) -> httpx.Response:
        commit = {
            "session": "run",
            "base_version": self.version,
            "version": self.version + 1,
            "view_digest": view_digest(digest(m) for m in self.view),
            "edits": edits,
            **more,
        }
        body = {"messages": self.view, "temperature": 0, "max_tokens": 8, "leyline": commit}
        return await self.client.post(CHAT, json=body, headers=self.headers)

    async def turn(self, *edits: dict[str, Any]) -> Receipt:
        response = await self.send(edits)
        assert response.status_code == 200, response.text
        self.version += 1
        self.view = [*self.view, response.json()["choices"][0]["message"], NEXT]
        return receipt_of(response)

    def stub(self, mode: str, **more: Any) -> dict[str, Any]:
        """Replace the old output in the view; the edit that says so."""
        self.view[1] = STUB
        return {"messages": [1, 2], "count": 1, "mode": mode, **more}


def receipt_of(response: httpx.Response) -> Receipt:
    body = response.json()
    return Receipt.model_validate(body.get("leyline", body))


def error_of(response: httpx.Response) -> dict[str, Any]:
    return response.json()["error"]


async def shown(client: httpx.AsyncClient, **headers: str) -> dict[str, Any]:
    response = await client.get(SESSION, headers=headers, params={"tokens": True})
    assert response.status_code == 200
    return response.json()


async def test_turns_append_and_receipts_add_up(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    first = await talk.turn()
    second = await talk.turn()
    assert (first.previous, first.version) == (0, 1)
    assert (second.base_version, second.version) == (1, 2)
    assert second.removed == second.reused_spliced == 0
    assert second.reused_exact >= first.prompt
    listed = (await client.get(f"{SESSION}/receipts")).json()["data"]
    assert [Receipt.model_validate(item) for item in listed] == [first, second]


@pytest.mark.parametrize("mode", ["amortize", "repair"])
async def test_an_edit_is_spliced(client: httpx.AsyncClient, mode: str) -> None:
    talk = Conversation(client)
    before = await talk.turn()
    receipt = await talk.turn(talk.stub(mode, policy="stale_reads"))
    [edit] = receipt.edits
    assert (edit.mode_asked, edit.mode_used, edit.reason) == (mode, mode, "asked")
    assert edit.policy == "stale_reads"
    assert receipt.reused_spliced > 0
    assert (receipt.recomputed > 0) == (mode == "repair")
    assert sum(edit.recomputed.values()) == receipt.recomputed
    assert receipt.prompt < before.prompt
    listed = (await client.get(f"{SESSION}/receipts")).json()["data"]
    assert [Receipt.model_validate(item).prompt for item in listed] == [
        before.prompt,
        receipt.prompt,
    ]


async def test_forget_keeps_nothing_behind_the_edit(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    receipt = await talk.turn(talk.stub("forget"))
    assert receipt.reused_spliced == 0
    assert receipt.edits[0].mode_used == "forget"
    assert receipt.reused_exact <= receipt.edits[0].start
    held = await shown(client)
    newest = held["versions"][-1]
    assert newest["canonical_tokens"] == newest["cached_tokens"]


async def test_forgetting_afterwards(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    edit = (await talk.turn(talk.stub("amortize"))).edits[0]
    spliced = (await shown(client))["versions"][-1]
    assert spliced["canonical_tokens"] < spliced["cached_tokens"]
    response = await client.post(f"{SESSION}/forget", json={"edit_id": edit.id})
    receipt = receipt_of(response)
    assert receipt.prefilled > 0
    assert receipt.reused_spliced == 0
    assert [e.id for e in receipt.edits] == [edit.id]
    held = await shown(client)
    assert held["newest"] == receipt.version == 2
    clean = held["versions"][-1]
    assert clean["canonical_tokens"] == clean["cached_tokens"] == spliced["cached_tokens"]
    # The next turn builds on what was computed again.
    assert (await talk.turn()).reused_spliced == 0
    again = receipt_of(await client.post(f"{SESSION}/forget", json={"edit_id": edit.id}))
    assert again.reason == "no_change"


async def test_forgetting_gives_up_older_versions_that_saw_it(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    edit = (await talk.turn(talk.stub("amortize"))).edits[0]
    await talk.turn()
    await client.post(f"{SESSION}/forget", json={"edit_id": edit.id})
    evicted = {v["version"]: v["evicted"] for v in (await shown(client))["versions"]}
    assert evicted == {1: False, 2: True, 3: False}


async def test_an_edit_ahead_is_found_done(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    edit = talk.stub("repair")
    view = talk.view[:-1]  # the tool still runs: nothing new yet
    commit = {
        "session": "run",
        "base_version": 1,
        "version": 2,
        "view_digest": view_digest(digest(m) for m in view),
        "edits": [edit],
    }
    response = await client.post(f"{SESSION}/edits", json={"messages": view, "leyline": commit})
    ahead = receipt_of(response)
    assert ahead.reused_spliced > 0
    assert ahead.appended == 0
    twice = await client.post(f"{SESSION}/edits", json={"messages": view, "leyline": commit})
    assert receipt_of(twice) == ahead
    talk.version = 2
    receipt = await talk.turn()
    assert receipt.edits == ()
    assert receipt.previous == ahead.prompt
    assert receipt.reused_spliced >= ahead.reused_spliced - 1
    assert receipt.prefilled <= receipt.appended + 1


async def test_edits_ahead_need_their_base(client: httpx.AsyncClient) -> None:
    commit = {"session": "run", "base_version": 4, "version": 5}
    body = {"messages": TASK, "leyline": commit}
    response = await client.post(f"{SESSION}/edits", json=body)
    assert response.status_code == 404
    assert error_of(response)["code"] == "unknown_session"
    await Conversation(client).turn()
    response = await client.post(f"{SESSION}/edits", json=body)
    assert response.status_code == 404
    assert "version 4" in error_of(response)["message"]
    other = await client.post("/v1/leyline/sessions/other/edits", json=body)
    assert other.status_code == 400
    assert "'other'" in error_of(other)["message"]


async def test_a_retry_acts_once(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    edit = talk.stub("amortize")
    first, again = await talk.send((edit,)), await talk.send((edit,))
    assert receipt_of(first).reused_spliced > 0
    repeated = receipt_of(again)
    assert repeated.reason == "retry"
    assert repeated.prompt == receipt_of(first).prompt
    assert repeated.prefilled + repeated.recomputed == 1
    assert again.json()["choices"][0]["message"] == first.json()["choices"][0]["message"]
    held = await shown(client)
    assert [v["version"] for v in held["versions"]] == [1, 2]


async def test_a_digest_that_does_not_match_is_an_ordinary_prefill(
    client: httpx.AsyncClient,
) -> None:
    talk = Conversation(client)
    await talk.turn()
    receipt = receipt_of(await talk.send((talk.stub("amortize"),), view_digest="0" * 32))
    assert receipt.reason == "digest_mismatch"
    assert receipt.reused_spliced == 0


async def test_an_unknown_base_is_an_ordinary_prefill(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    talk.version = 41
    receipt = receipt_of(await talk.send((talk.stub("amortize"),)))
    assert receipt.reason == "unknown_session"
    assert "version 41" in receipt.detail
    assert receipt.reused_spliced == 0


async def test_unknown_sessions_are_not_found(client: httpx.AsyncClient) -> None:
    answers = [
        await client.get(SESSION),
        await client.delete(SESSION),
        await client.get(f"{SESSION}/receipts"),
        await client.post(f"{SESSION}/forget", json={"edit_id": "1.0"}),
        await client.post(f"{SESSION}/directives", json={"base_version": 1, "directives": []}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert {error_of(answer)["code"] for answer in answers} == {"unknown_session"}


@pytest.mark.parametrize("name", ["runs/4 2?x#é", "a/b", "receipts"])
async def test_an_id_may_be_any_text(client: httpx.AsyncClient, name: str) -> None:
    talk = Conversation(client)
    assert (await talk.send(session=name)).status_code == 200
    url = f"/v1/leyline/sessions/{quote(name, safe='')}"
    assert (await client.get(url)).json()["id"] == name
    assert len((await client.get(f"{url}/receipts")).json()["data"]) == 1
    assert (await client.delete(url)).json()["deleted"] is True


async def test_a_deleted_session_gives_its_slots_back(
    tiny_service: ChatService, client: httpx.AsyncClient
) -> None:
    talk = Conversation(client)
    await talk.turn()
    await talk.turn(talk.stub("amortize"))
    held = tiny_service.engine.pool.num_used
    answer = await client.delete(SESSION)
    assert answer.json() == {"id": "run", "object": "leyline.session", "deleted": True}
    assert tiny_service.engine.pool.num_used < held
    assert tiny_service.engine.pool.num_used == tiny_service.engine.forest.num_tokens
    assert (await client.get(SESSION)).status_code == 404


async def test_a_failed_turn_leaves_the_session_as_it_was(client: httpx.AsyncClient) -> None:
    talk = Conversation(client)
    await talk.turn()
    before = await shown(client)
    talk.view[-1] = {"role": "user", "content": "error in line 12 " * 2000}
    assert (await talk.send()).status_code == 400
    assert await shown(client) == before
    talk.view[-1] = NEXT
    await talk.turn()


# -- directives -------------------------------------------------------------------------------


async def directives(client: httpx.AsyncClient, base: int, *spans: Any, **more: Any) -> Any:
    wire = [
        {"start": start, "end": end, "replacement": new, "mode": mode}
        for start, end, new, mode in spans
    ]
    body = {"base_version": base, "directives": wire, **more}
    return await client.post(f"{SESSION}/directives", json=body)


async def test_the_last_id_sampled_is_told(client: httpx.AsyncClient) -> None:
    """No KV is held of it where the limit ended the reply, and directives do not count it."""
    prompt = list(range(40, 80))
    body = {"prompt": prompt, "max_tokens": 5, "temperature": 0, "leyline": {"session": "run"}}
    done = await client.post("/v1/completions", json=body)
    sampled = done.json()["choices"][0]["token_ids"]
    assert len(sampled) == 5
    held = await shown(client)
    assert held["token_ids"] == [*prompt, *sampled[:-1]]
    assert held["pending_token_ids"] == sampled[-1:]
    assert (await directives(client, 1, (0, 2, [], "amortize"))).status_code == 200
    assert (await shown(client))["pending_token_ids"] == sampled[-1:]


async def test_directives_edit_the_tokens(client: httpx.AsyncClient) -> None:
    await Conversation(client).turn()
    before = (await shown(client))["token_ids"]
    response = await directives(
        client, 1, (20, 60, [7, 8, 9], "amortize"), (80, 90, [], "amortize")
    )
    receipt = receipt_of(response)
    assert receipt.version == 2
    assert [e.mode_used for e in receipt.edits] == ["amortize", "amortize"]
    assert (receipt.removed, receipt.inserted) == (50, 3)
    assert receipt.reused_spliced > 0
    assert (await shown(client))["token_ids"] == [
        *before[:20],
        *(7, 8, 9),
        *before[60:80],
        *before[90:],
    ]


async def test_a_directives_version_goes_forward(client: httpx.AsyncClient) -> None:
    await Conversation(client).turn()
    span = (20, 60, [7], "amortize")
    assert receipt_of(await directives(client, 1, span, version=5)).version == 5
    back = await directives(client, 5, span, version=5)
    assert back.status_code == 400
    assert error_of(back)["param"] == "version"


async def test_edits_of_an_evicted_version(
    tiny_service: ChatService, client: httpx.AsyncClient
) -> None:
    talk = Conversation(client)
    await talk.turn()
    engine = tiny_service.engine
    engine.reclaim(engine.pool.num_slots)
    refused = await directives(client, 1, (20, 60, [7], "amortize"))
    assert (refused.status_code, error_of(refused)["code"]) == (404, "unknown_session")
    assert "version 1 of session 'run' was evicted" in error_of(refused)["message"]
    receipt = await talk.turn(talk.stub("amortize"))
    assert (receipt.reason, receipt.detail) == ("evicted", "version 1 was evicted")
    assert receipt.prefilled == receipt.prompt


async def test_directives_again_act_once(client: httpx.AsyncClient) -> None:
    await Conversation(client).turn()
    span = (20, 60, [7], "amortize")
    first, again = [receipt_of(await directives(client, 1, span)) for _ in range(2)]
    assert first == again
    stale = await directives(client, 1, (20, 61, [7], "amortize"))
    assert stale.status_code == 409
    assert error_of(stale)["code"] == "stale_session"
    assert "version 2" in error_of(stale)["message"]


@pytest.mark.parametrize(
    ("spans", "code"),
    [
        ([(20, 60, [7], "amortize"), (50, 70, [], "amortize")], "overlapping_spans"),
        ([(20, 60, [7], "amortize"), (5000, 6000, [], "forget")], "invalid_span"),
        ([(60, 20, [], "amortize")], "invalid_span"),
        ([(20, 60, [99999], "amortize")], "invalid_request"),
        ([(20, 60, [-1], "amortize")], "invalid_request"),
    ],
)
async def test_directives_are_all_or_none(
    client: httpx.AsyncClient, spans: list[Any], code: str
) -> None:
    await Conversation(client).turn()
    before = await shown(client)
    response = await directives(client, 1, *spans)
    assert response.status_code == 400
    assert error_of(response)["code"] == code
    assert await shown(client) == before
    assert (await directives(client, 1, (20, 60, [7], "amortize"))).status_code == 200


async def test_a_chat_turn_builds_on_directives(client: httpx.AsyncClient) -> None:
    talk, plain = Conversation(client), Conversation(client)
    first = await talk.turn()
    plain.view[1] = STUB
    stubbed = receipt_of(await plain.send(session="plain"))
    held = await client.get("/v1/leyline/sessions/plain", params={"tokens": True})
    after = held.json()["token_ids"][: stubbed.prompt]
    before = (await shown(client))["token_ids"][: first.prompt]
    start = common_prefix(before, after)
    same = common_suffix(before, after, len(after) - start)
    new = after[start : len(after) - same]
    done = await directives(client, 1, (start, len(before) - same, new, "amortize"))
    talk.version, talk.view[1] = 2, STUB
    receipt = await talk.turn()
    assert receipt.previous == receipt_of(done).prompt
    assert receipt.reason == "asked"
    assert receipt.edits == ()
    assert receipt.reused_spliced > 0
    assert receipt.prefilled == receipt.appended
