"""Splices on a real server: what they cost, and that the KV is what the arithmetic says."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
import torch
from engine_cases import amortized_by
from vllm_answers import CLOSE, apart, tops
from vllm_server import BLOCK, Server
from vllm_texts import edit, runs, spliced, words

from leyline_adapters.vllm.wire import Ask, Claim
from leyline_agent.directive import Directive, Mode
from leyline_agent.serving.models.rope import RopeSpec

A, X, B, Q = words(130, 0), words(170, 700), words(260, 130), words(12, 1000)
WHOLE = A + X + B
KEPT = ((0, len(A)), (len(A) + len(X), len(WHOLE)))
SAME = 0.05  # The same keys, turned once by the same angle.


@cache
def reference() -> Any:
    """The model by transformers, in float32."""
    from transformers import AutoModelForCausalLM

    folder = os.environ["LEYLINE_VLLM_MODEL"]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def by_hand(
    tokens: list[int], directives: list[Directive], appended: list[int], *, turn: bool = True
) -> dict[str, float]:
    """Log-probabilities behind edited tokens, with a cache put together by hand."""
    from vllm_texts import tokenizer

    model = reference()
    rotary = model.model.rotary_emb
    rope = RopeSpec(rotary.inv_freq.double(), "half")

    def move(layer: int, start: int, end: int, shift: int) -> tuple[Any, Any]:
        keys, values = cached[layer].keys[:, :, start:end], cached[layer].values[:, :, start:end]
        cos, sin = rope.tables(torch.tensor([shift if turn else 0]), torch.float64)
        return rope.rotate(keys, cos, sin), values

    with torch.inference_mode():
        cached = model(torch.tensor([tokens])).past_key_values.layers
        logits = amortized_by(model, cached, move, tokens, directives, appended)
    found = logits.log_softmax(-1).topk(40)
    names = tokenizer().convert_ids_to_tokens(found.indices.tolist())
    texts = [tokenizer().convert_tokens_to_string([name]) for name in names]
    return dict(zip(texts, found.values.tolist(), strict=True))


@pytest.fixture
def source(server: Server) -> str:
    """A handle of WHOLE, for one test: the server is small, and sources of others make room."""
    told, _ = server.ask(WHOLE, Ask(session="s"))
    assert told.reason == "asked"
    return told.handle


def test_a_source_is_prefilled_once(server: Server) -> None:
    told, answer = server.ask(WHOLE, Ask(session="s"))
    assert (told.prefilled, server.cached(answer)) == (len(WHOLE), 0)
    again, _ = server.ask(WHOLE, Ask(session="s"))
    assert 0 < again.prefilled <= BLOCK


def test_a_deletion_costs_its_new_tokens(server: Server, source: str) -> None:
    told, answer = server.ask(spliced(WHOLE, *KEPT) + Q, edit(source, *KEPT))
    assert (told.reused_exact, told.reused_spliced, told.prefilled) == (len(A), len(B), len(Q))
    assert (told.reason, told.detail, told.spliced_from) == ("asked", "", len(A))
    assert told.splice_us > 0
    assert server.cached(answer) == len(A) + len(B)


def test_what_is_spliced_is_the_rotated_source(server: Server, source: str) -> None:
    answer = server.complete(spliced(WHOLE, *KEPT) + Q, edit(source, *KEPT), tokens=1, logprobs=20)
    cut = [Directive(len(A), len(A) + len(X), (), Mode.AMORTIZE)]
    found = apart(tops(answer), by_hand(WHOLE, cut, Q))
    assert found < CLOSE
    # The test can tell: keys that were not turned, and an honest prefill, are something else.
    assert apart(tops(answer), by_hand(WHOLE, cut, Q, turn=False)) > 2 * CLOSE
    assert apart(tops(answer), by_hand(A + B, [], Q)) > 2 * found


def test_a_retry_finds_what_it_made(server: Server, source: str) -> None:
    prompt = spliced(WHOLE, *KEPT) + Q
    first, one = server.ask(prompt, edit(source, *KEPT))
    again, two = server.ask(prompt, edit(source, *KEPT))
    assert first.handle != again.handle
    assert (again.reused_exact, again.reused_spliced) == (len(A), len(B))
    assert apart(tops(one), tops(two)) < SAME


def test_several_edits_in_one_request(server: Server, source: str) -> None:
    kept = ((0, 40), (77, 200), (231, 400), (433, len(WHOLE)))
    told, answer = server.ask(spliced(WHOLE, *kept) + Q, edit(source, *kept), logprobs=20)
    assert (told.reused_exact, told.prefilled) == (40, len(Q))
    gaps = [(40, 77), (200, 231), (400, 433)]
    cuts = [Directive(start, end, (), Mode.AMORTIZE) for start, end in gaps]
    assert apart(tops(answer), by_hand(WHOLE, cuts, Q)) < CLOSE


def test_the_lineage_goes_on(server: Server, source: str) -> None:
    """A turn behind a splice reuses all of it, sampled tokens too, and may be edited again."""
    first, answer = server.ask(
        spliced(WHOLE, *KEPT) + Q, edit(source, *KEPT), tokens=5, ignore_eos=True
    )
    said = spliced(WHOLE, *KEPT) + Q + answer["choices"][0]["token_ids"]
    held = len(said) - 1
    second, _ = server.ask(said + Q, edit(first.handle, (0, held)))
    assert (second.reused_exact, second.prefilled) == (len(A), len(Q) + 1)
    assert second.spliced_from == len(A)
    kept = ((0, 30), (50, 300), (311, held))
    third, _ = server.ask(spliced(said, *kept) + Q, edit(second.handle, *kept))
    assert (third.reused_exact, third.prefilled, third.spliced_from) == (30, len(Q), 30)
    lost, _ = server.ask(said + Q, Ask(session="s"))
    assert lost.reused_exact + lost.reused_spliced <= len(A)


def test_a_chain_of_edits_does_not_drift(server: Server) -> None:
    """Ten edits, one behind the other, turn a key once from where it was written: as one does."""
    told, _ = server.ask(WHOLE, Ask(session="chain"))
    origin = handle = told.handle
    now, step = list(WHOLE), len(X) // 10
    for _ in range(10):
        kept = ((0, len(A)), (len(A) + step, len(now)))
        done = () if handle == origin else (handle,)
        now = spliced(now, *kept)
        told, answer = server.ask(
            [*now, *Q], edit(handle, *kept, session="chain", release=done), logprobs=20
        )
        assert told.prefilled == len(Q)
        handle = told.handle
    at_once = edit(origin, *KEPT, session="chain", keep=False, release=(origin, handle))
    told, once = server.ask([*now, *Q], at_once, logprobs=20)
    assert (told.reused_spliced, told.prefilled) == (len(B), len(Q))
    assert apart(tops(answer), tops(once)) < SAME
    cut = [Directive(len(A), len(A) + len(X), (), Mode.AMORTIZE)]
    assert apart(tops(answer), by_hand(WHOLE, cut, Q)) < CLOSE


def test_a_replacement_in_two_steps(server: Server, source: str) -> None:
    """The new text is computed by a step behind what it follows; the last request joins them."""
    new, window = words(25, 1100), 16
    start = len(A) + len(X)
    head = A + new + WHOLE[start : start + window]
    step, _ = server.ask(head, edit(source, (0, len(A))))
    assert (step.reused_exact, step.prefilled) == (len(A), len(new) + window)
    claims = (
        *runs(step.handle, (0, len(head))),
        Claim(source=source, start=start + window, end=len(WHOLE), at=len(head)),
    )
    whole = head + WHOLE[start + window :]
    told, answer = server.ask(
        whole + Q, Ask(session="s", base=step.handle, claims=claims), logprobs=20
    )
    assert (told.reason, told.detail) == ("asked", "")
    assert (told.reused_exact, told.prefilled) == (len(head), len(Q))
    assert told.reused_spliced == len(B) - window
    repaired = [Directive(len(A), start + window, tuple(head[len(A) :]), Mode.AMORTIZE)]
    assert apart(tops(answer), by_hand(WHOLE, repaired, Q)) < CLOSE


def test_forget_is_a_plain_prefill(server: Server) -> None:
    """No claims behind the edit: the suffix is computed, and is what a plain server computes."""
    head, cut, tail = words(70, 500), words(40, 800), words(150, 570)
    kept, _ = server.ask(head + cut + tail, Ask(session="forget"))
    prompt = head + tail + Q
    claims = runs(kept.handle, (0, len(head)))
    forgotten, answer = server.ask(prompt, Ask(session="forget", claims=claims), logprobs=20)
    assert (forgotten.reused_exact, forgotten.reused_spliced) == (len(head), 0)
    assert forgotten.spliced_from is None
    plain = server.complete(prompt, salt="forget", logprobs=20)
    assert server.cached(plain) == 0
    assert apart(tops(answer), tops(plain)) < CLOSE
    assert apart(tops(answer), by_hand(head + tail, [], Q)) < CLOSE


def test_a_forget_behind_a_splice_stays_in_the_lineage(server: Server, source: str) -> None:
    first, _ = server.ask(spliced(WHOLE, *KEPT) + Q, edit(source, *KEPT))
    at = len(A) + 100
    told, _ = server.ask((A + B)[:at] + Q, edit(first.handle, (0, at)))
    assert (told.reused_exact, told.reused_spliced, told.prefilled) == (len(A), 100, len(Q))
    again, _ = server.ask((A + B)[:at] + Q, edit(first.handle, (0, at)))
    assert again.spliced_from == len(A)


def test_requests_that_ask_nothing_get_no_receipt(server: Server) -> None:
    answer = server.complete(words(50, 1200))
    assert not answer.get("kv_transfer_params")
