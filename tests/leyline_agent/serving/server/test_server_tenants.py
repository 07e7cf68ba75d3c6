"""Who shares what: tenants nothing, sessions of one tenant canonical KV only."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from leyline_agent.receipt import Receipt

CHAT = "/v1/chat/completions"
SESSION = "/v1/leyline/sessions/run"
OLD = {"role": "user", "content": "Traceback (most recent call last): error in line 12. " * 8}
STUB = {"role": "user", "content": "[removed]"}
REST = [
    {"role": "assistant", "content": "The tests run. " * 12},
    {"role": "user", "content": "List the folder. " * 12},
]


async def send(
    client: httpx.AsyncClient, token: str = "", *, edited: bool = False, **more: Any
) -> Receipt:
    """A turn of the tenant whose bearer token it is."""
    body = {"messages": [STUB if edited else OLD, *REST], "max_tokens": 2, **more}
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = await client.post(CHAT, json=body, headers=headers)
    assert response.status_code == 200
    return Receipt.model_validate(response.json()["leyline"])


FIRST = {"session": "run", "version": 1}
EDIT = {"messages": [0, 1], "count": 1, "mode": "amortize"}
SECOND = {"session": "run", "base_version": 1, "version": 2, "edits": [EDIT]}


async def test_tenants_share_neither_sessions_nor_cache(client: httpx.AsyncClient) -> None:
    await send(client, "ours", leyline=FIRST)
    theirs = await send(client, "theirs", leyline=FIRST)
    assert theirs.reused == 0
    assert (await send(client, "ours", edited=True, leyline=SECOND)).reused_spliced > 0
    headers = {"Authorization": "Bearer theirs"}
    assert (await client.get(SESSION, headers=headers)).json()["newest"] == 1
    assert (await client.get(SESSION)).status_code == 404
    assert (await client.delete(SESSION)).status_code == 404
    # The other tenant's version 1 is no base for ours.
    stolen = await send(client, "nobody", edited=True, leyline=SECOND)
    assert (stolen.reason, stolen.reused) == ("unknown_session", 0)


async def test_a_body_cannot_name_a_tenant(client: httpx.AsyncClient) -> None:
    await send(client, "ours")
    assert (await send(client, tenant="ours", user="ours")).reused == 0
    assert (await send(client, "ours")).reused > 0


async def test_spliced_tokens_serve_no_other_session(client: httpx.AsyncClient) -> None:
    await send(client, leyline=FIRST)
    edited = await send(client, edited=True, leyline=SECOND)
    assert edited.reused_spliced > 0
    other = await send(client, edited=True, leyline={**FIRST, "session": "other"})
    assert other.prompt == edited.prompt
    assert other.reused_spliced == 0
    # What stands before the spliced tokens is canonical, the replacement included.
    assert other.reused_exact == edited.edits[0].start + edited.edits[0].inserted


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer   ", "bearer "])
async def test_an_empty_token_is_nobodys(client: httpx.AsyncClient, header: str) -> None:
    await send(client)
    body = {"messages": [OLD, *REST], "max_tokens": 1}
    same = await client.post(CHAT, json=body, headers={"Authorization": header})
    assert same.json()["leyline"]["reused_exact"] > 0


async def test_tokens_are_told_apart_whole(client: httpx.AsyncClient) -> None:
    await send(client, "key-1")
    assert (await send(client, "key-10")).reused == 0
    assert (await send(client, "KEY-1")).reused == 0
