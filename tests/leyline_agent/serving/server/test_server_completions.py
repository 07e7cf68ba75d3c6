"""`/v1/completions`: text and token ids, with directives."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService

URL = "/v1/completions"
PROMPT = "Read the file again, list the folder, run the tests. " * 6


def body(prompt: str | list[int] = PROMPT, **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "temperature": 0, **more}


def commit(base: int, version: int, *spans: Any) -> dict[str, Any]:
    directives = [
        {"start": start, "end": end, "replacement": new, "mode": mode}
        for start, end, new, mode in spans
    ]
    return {"session": "run", "base_version": base, "version": version, "directives": directives}


def receipt_of(response: httpx.Response) -> Receipt:
    assert response.status_code == 200, response.text
    return Receipt.model_validate(response.json()["leyline"])


@pytest.fixture
def ids(tiny_service: ChatService) -> list[int]:
    return list(tiny_service.chat.tokenizer.encode(PROMPT))


async def test_text_and_ids_give_the_same(client: httpx.AsyncClient, ids: list[int]) -> None:
    text = (await client.post(URL, json=body())).json()
    tokens = (await client.post(URL, json=body(ids))).json()
    assert text["object"] == "text_completion"
    assert text["id"].startswith("cmpl-")
    assert text["choices"] == tokens["choices"]
    [choice] = text["choices"]
    assert choice["finish_reason"] == "length"
    assert text["usage"]["prompt_tokens"] == len(ids)
    assert text["usage"]["completion_tokens"] == len(choice["token_ids"]) == 16
    assert tokens["usage"]["prompt_tokens_details"]["cached_tokens"] == len(ids) - 1


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_says_the_same(client: httpx.AsyncClient, usage: bool) -> None:
    whole = (await client.post(URL, json=body())).json()
    options = {"stream": True, "stream_options": {"include_usage": usage}}
    response = await client.post(URL, json=body(**options))
    lines = [line for line in response.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole["choices"][0]["text"]
    assert choices[-1]["finish_reason"] == "length"
    assert choices[-1]["token_ids"] == whole["choices"][0]["token_ids"]
    assert "leyline" in chunks[-1]
    assert chunks[-1].get("usage", {}).get("completion_tokens") == (16 if usage else None)
    assert (chunks[-1]["choices"] == []) == usage


async def test_directives_are_spliced(client: httpx.AsyncClient, ids: list[int]) -> None:
    first = await client.post(URL, json=body(ids, leyline=commit(0, 1)))
    whole = [*ids, *first.json()["choices"][0]["token_ids"]]
    spans = ((10, 30, [5, 6], "amortize"), (40, 45, [], "amortize"))
    edited = [*whole[:10], 5, 6, *whole[30:40], *whole[45:]]
    new = [*edited, *ids[:7]]
    receipt = receipt_of(await client.post(URL, json=body(new, leyline=commit(1, 2, *spans))))
    assert (receipt.session, receipt.base_version, receipt.version) == ("run", 1, 2)
    assert [(e.start, e.end, e.mode_used) for e in receipt.edits] == [
        (10, 30, "amortize"),
        (40, 45, "amortize"),
    ]
    assert receipt.prompt == len(new)
    assert receipt.reused_spliced > 0
    assert receipt.removed == 25
    # The last token that was sampled had not been computed yet: it counts as appended.
    assert receipt.appended == len(ids[:7]) + 1


async def test_the_claim_is_checked(client: httpx.AsyncClient, ids: list[int]) -> None:
    await client.post(URL, json=body(ids, leyline=commit(0, 1)))
    lie = [*ids[:10], *ids[30:50], 7, 7, *ids[50:]]  # says nothing of the two sevens
    span = (10, 30, [], "amortize")
    receipt = receipt_of(await client.post(URL, json=body(lie, leyline=commit(1, 2, span))))
    assert [e.reason for e in receipt.edits] == ["asked", "undeclared"]
    assert receipt.edits[1].mode_used == "forget"
    assert receipt.reused_exact + receipt.reused_spliced <= 30
    plain = await client.post(URL, json=body(lie), headers={"Authorization": "Bearer other"})
    assert receipt_of(plain).prompt == receipt.prompt


async def test_a_retry_acts_once(client: httpx.AsyncClient, ids: list[int]) -> None:
    await client.post(URL, json=body(ids, leyline=commit(0, 1)))
    new = [*ids[:10], *ids[30:]]
    again = body(new, leyline=commit(1, 2, (10, 30, [], "amortize")))
    first = await client.post(URL, json=again)
    second = await client.post(URL, json=again)
    assert receipt_of(second).reason == "retry"
    assert receipt_of(second).prefilled == 1
    assert second.json()["choices"] == first.json()["choices"]


async def test_an_unknown_base_is_an_ordinary_prefill(
    client: httpx.AsyncClient, ids: list[int]
) -> None:
    receipt = receipt_of(await client.post(URL, json=body(ids, leyline=commit(3, 4))))
    assert receipt.reason == "unknown_session"
    assert receipt.prefilled == len(ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": []}, "empty"),
        ({"prompt": ""}, "empty"),
        ({"prompt": [1, 100000]}, "token id 100000"),
        ({"prompt": [-1]}, "token id -1"),
        ({"prompt": 7}, "prompt: expected a string or an array of token ids"),
        ({"prompt": None}, "prompt: expected a string or an array of token ids"),
        ({"prompt": [True]}, "prompt: expected a string or an array of token ids"),
        ({"prompt": ["a", "b"]}, "prompt: a batch of 2 prompts is not supported"),
        ({"prompt": [[1], [2]]}, "prompt: a batch of 2 prompts is not supported"),
        ({"leyline": commit(3, 3)}, "leyline.version: 3 is not higher than base_version 3"),
        ({"echo": True}, "echo"),
        ({"logprobs": 1}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"stop": [""]}, "stop"),
        ({"leyline": commit(0, 1, (0, 1, [100000], "forget"))}, "token id 100000"),
    ],
)
async def test_bad_bodies(client: httpx.AsyncClient, change: dict[str, Any], words: str) -> None:
    response = await client.post(URL, json={**body(), **change})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


async def test_a_batch_of_one_is_a_prompt(client: httpx.AsyncClient, ids: list[int]) -> None:
    answers = [await client.post(URL, json=body(p)) for p in (PROMPT, [PROMPT], [ids])]  # type: ignore[arg-type,list-item]
    assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1


async def test_a_number_is_never_used_again(client: httpx.AsyncClient, ids: list[int]) -> None:
    await client.post(URL, json=body(ids, leyline=commit(0, 1)))
    await client.post(URL, json=body(ids, leyline=commit(1, 2)))
    response = await client.post(URL, json=body(ids[:-1], leyline=commit(1, 2)))
    assert response.status_code == 409
    assert response.json()["error"]["code"] == "stale_session"


async def test_directives_that_do_not_fit(client: httpx.AsyncClient, ids: list[int]) -> None:
    await client.post(URL, json=body(ids, leyline=commit(0, 1)))
    span = (len(ids), 10 * len(ids), [], "amortize")
    response = await client.post(URL, json=body(ids, leyline=commit(1, 2, span)))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_span"
    held = (await client.get("/v1/leyline/sessions/run")).json()
    assert held["newest"] == 1
    assert held["versions"][0]["messages"] is None


async def test_directives_of_no_version_are_refused(client: httpx.AsyncClient) -> None:
    directive = {"start": 0, "end": 1, "replacement": [], "mode": "amortize"}
    commit = {"session": "run", "directives": [directive]}
    response = await client.post(URL, json={"prompt": [1, 2, 3], "leyline": commit})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "leyline.base_version"
