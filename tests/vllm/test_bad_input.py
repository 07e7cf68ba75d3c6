"""What clients, memory and workers can do wrong: an ordinary prefill with a reason, no crash."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from vllm_answers import CLOSE, apart, tops
from vllm_server import Server
from vllm_texts import edit, runs, spliced, words

from leyline_adapters.vllm.wire import KEY, Ask, Claim

A, X, B, Q = words(70, 100), words(60, 850), words(120, 600), words(7, 1000)
WHOLE = A + X + B
KEPT = ((0, len(A)), (len(A) + len(X), len(WHOLE)))
PROMPT = A + B + Q


@pytest.fixture
def source(server: Server, request: pytest.FixtureRequest) -> tuple[str, str]:
    """A session of the test's own, and the handle of WHOLE in it; its tenant is the session."""
    session = request.node.name
    told, _ = server.ask(WHOLE, Ask(session=session), salt=session)
    return session, told.handle


def check_alive(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").status_code == 200
    answer = server.complete(words(20, 0), tokens=2)
    assert len(answer["choices"][0]["token_ids"]) == 2


def test_an_unknown_handle(server: Server) -> None:
    told, _ = server.ask(PROMPT, edit("never-made", *KEPT))
    assert (told.reason, told.spliced_from) == ("unknown_session", None)
    assert "never-made" in told.detail
    assert told.handle


@pytest.mark.parametrize(
    "asked",
    [
        {"session": ""},
        {"session": "s", "claims": [{"source": "x", "start": 5, "end": 5, "at": 0}]},
        {"session": "s", "claims": [{"source": "x", "start": -1, "end": 5, "at": 0}]},
        {"session": "s", "claims": "all of it"},
        {"session": "s", "surprise": 1},
        ["not", "an", "object"],
        None,
        7,
    ],
)
def test_an_ask_that_is_none(server: Server, asked: Any) -> None:
    body = {
        "model": server.model, "prompt": words(40, 0), "max_tokens": 1,
        "kv_transfer_params": {KEY: asked},
    }  # fmt: skip
    response = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60)
    assert response.status_code == 200
    told = server.told(response.json())
    assert (told.reason, told.handle, told.reused_spliced) == ("invalid_edit", "", 0)


def test_another_protocol(server: Server, source: tuple[str, str]) -> None:
    session, handle = source
    asked = edit(handle, *KEPT, session=session, protocol=99)
    told, _ = server.ask(PROMPT, asked, salt=session)
    assert (told.reason, told.reused_spliced) == ("engine_cannot_splice", 0)


def test_tokens_that_are_others(server: Server, source: tuple[str, str]) -> None:
    """The claim is shortened to what is the same; nothing is served for the rest."""
    session, handle = source
    wrong = list(PROMPT)
    wrong[len(A) + 50] = 17
    told, _ = server.ask(wrong, edit(handle, *KEPT, session=session), salt=session)
    assert told.reason == "invalid_edit"
    assert f"token {len(A) + 50} of the prompt is another" in told.detail
    assert (told.reused_exact, told.reused_spliced) == (len(A), 50)
    right, _ = server.ask(PROMPT, edit(handle, *KEPT, session=session), salt=session)
    assert right.reused_spliced == len(B)


def test_claims_past_the_prompt_and_past_the_source(
    server: Server, source: tuple[str, str]
) -> None:
    session, handle = source
    short, _ = server.ask(PROMPT[:100], edit(handle, *KEPT, session=session), salt=session)
    assert short.reason == "invalid_edit"
    assert short.prefilled == 1
    far, _ = server.ask(PROMPT, edit(handle, (0, 9_000), session=session), salt=session)
    assert (far.reason, far.reused_exact) == ("invalid_edit", len(A))


def test_claims_with_a_hole_stop_at_it(server: Server, source: tuple[str, str]) -> None:
    session, handle = source
    hole = len(A) + 3
    claims = (
        *runs(handle, KEPT[0]),
        Claim(source=handle, start=KEPT[1][0], end=KEPT[1][1], at=hole),
    )
    prompt = A + [5, 6, 7] + B + Q
    told, _ = server.ask(prompt, Ask(session=session, base=handle, claims=claims), salt=session)
    assert (told.reused_exact, told.reused_spliced) == (len(A), 0)


def test_a_released_source(server: Server, source: tuple[str, str]) -> None:
    session, handle = source
    server.ask(words(30, 0), Ask(session=session, keep=False, release=(handle,)), salt=session)
    told, _ = server.ask(PROMPT, edit(handle, *KEPT, session=session), salt=session)
    assert (told.reason, told.reused_spliced) == ("evicted", 0)


def test_a_release_by_others_does_nothing(server: Server, source: tuple[str, str]) -> None:
    session, handle = source
    server.ask(words(30, 0), Ask(session="thief", keep=False, release=(handle,)))
    told, _ = server.ask(PROMPT, edit(handle, *KEPT, session=session), salt=session)
    assert told.reused_spliced == len(B)


def test_a_worker_that_fails_half_way(server: Server, source: tuple[str, str]) -> None:
    """Half the layers are written, then it raises: prefilled, and nothing of it is ever found."""
    session, handle = source
    asked = edit(handle, *KEPT, session=session)
    switch = server.switches / "fail"
    switch.touch()
    try:
        told, failed = server.ask(PROMPT, asked, salt=session, logprobs=20)
    finally:
        switch.unlink()
    assert told.reason == "engine_cannot_splice"
    assert "told to fail" in told.detail
    assert (told.reused_spliced, told.spliced_from) == (0, None)
    assert told.prefilled >= len(B) + len(Q)
    plain = server.complete(PROMPT, salt="plain", logprobs=20)
    assert failed["choices"][0]["token_ids"] == plain["choices"][0]["token_ids"]
    _, again = server.ask(PROMPT, asked, salt=session, logprobs=20)
    other, _ = server.ask(WHOLE, Ask(session="whole"), salt="whole")
    spliced_asked = edit(other.handle, *KEPT, session="whole")
    told, whole = server.ask(PROMPT, spliced_asked, salt="whole", logprobs=20)
    assert told.reused_spliced == len(B)
    # What was computed in the end is found again, or it is copied, whole: never half of it.
    assert apart(tops(failed), tops(plain)) < CLOSE
    assert min(apart(tops(again), tops(one)) for one in (plain, whole)) < CLOSE
    canonical = server.complete(PROMPT, salt=session, logprobs=20)
    assert apart(tops(canonical), tops(plain)) < CLOSE
    check_alive(server)


def test_a_client_that_goes_away(server: Server, source: tuple[str, str]) -> None:
    session, handle = source
    body = {
        "model": server.model, "prompt": PROMPT, "max_tokens": 500, "ignore_eos": True,
        "cache_salt": session, "stream": True,
        "kv_transfer_params": {KEY: edit(handle, *KEPT, session=session).model_dump(mode="json")},
    }  # fmt: skip
    with httpx.stream("POST", f"{server.url}/v1/completions", json=body, timeout=60) as response:
        next(response.iter_lines())
    told, _ = server.ask(PROMPT, edit(handle, *KEPT, session=session), salt=session)
    assert (told.reason, told.reused_exact) == ("asked", len(A))
    assert told.reused_spliced >= len(B)  # and what the other had computed behind it
    check_alive(server)


def test_sources_that_made_room(server: Server, source: tuple[str, str]) -> None:
    """Newer sources take over the pins and prompts fill the memory: the reason is told."""
    session, handle = source
    for number in range(5):
        server.ask([3 + number, *words(210, 0)], Ask(session="newer"), salt=session)
    for number in range(4):
        server.complete([3 + number, *words(1590, 0)], salt=f"filler {number}")
    told, answer = server.ask(PROMPT, edit(handle, *KEPT, session=session), salt=session)
    assert told.reason == "evicted"
    assert told.reused_exact + told.reused_spliced == server.cached(answer) < len(A + B)
    check_alive(server)


def test_requests_that_are_preempted(server: Server, source: tuple[str, str]) -> None:
    """Two long requests are under way, then edits that grow: they give way, and go on later."""
    session, handle = source
    asked = edit(handle, *KEPT, session=session)
    alone = server.complete(PROMPT, asked, salt=session, logprobs=20)
    under_way = threading.Semaphore(0)

    def long(number: int) -> int:
        body = {
            "model": server.model, "prompt": [9 + number, *words(1590, 0), *words(300, 0)],
            "max_tokens": 120, "ignore_eos": True, "stream": True,
        }  # fmt: skip
        url, tokens = f"{server.url}/v1/completions", 0
        with httpx.stream("POST", url, json=body, timeout=300) as response:
            for line in response.iter_lines():
                if line.startswith("data: {"):
                    tokens += 1
                    under_way.release()
        return tokens

    def edited(_: int) -> Any:
        return server.complete(
            PROMPT, asked, salt=session, tokens=100, ignore_eos=True, logprobs=20
        )

    with ThreadPoolExecutor(6) as pool:
        longs = [pool.submit(long, number) for number in range(2)]
        for _ in range(3):  # the second is through its prompt with the third token of both
            assert under_way.acquire(timeout=120)
        answers = list(pool.map(edited, range(4)))
        assert all(one.result() >= 100 for one in longs)
    told = [server.told(answer) for answer in answers]
    assert any("preempted" in one.detail for one in told), told
    for one, answer in zip(told, answers, strict=True):
        assert len(answer["choices"][0]["token_ids"]) == 100
        if one.reused_spliced >= len(B):
            assert apart(tops(answer), tops(alone)) < CLOSE
    assert server.complete(PROMPT, asked, salt=session)["kv_transfer_params"]
    check_alive(server)


def test_directives_over_and_over_leak_no_blocks(server: Server) -> None:
    """A session of many edits that releases what it no longer needs leaves room for the longest."""
    now, handle = spliced(WHOLE, (0, len(WHOLE))), ""
    for number in range(8):
        told, _ = (
            server.ask(now, Ask(session="long"))
            if not handle
            else server.ask(
                [*now[:40], *now[45:], number + 3],
                edit(handle, (0, 40), (45, len(now)), session="long", release=(handle,)),
            )
        )
        now = [*now[:40], *now[45:], number + 3] if handle else now
        handle = told.handle
    longest = server.complete([8, *words(1600, 0), *words(1600, 0), *words(800, 0)], salt="longest")
    assert longest["usage"]["prompt_tokens"] > 3_900
