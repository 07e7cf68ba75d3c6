from __future__ import annotations

import json
from typing import Any

import pytest

from leyline_adapters.sglang.ledger import Owner, Plan
from leyline_adapters.sglang.spaces import SHARED, Space, as_tokens
from leyline_adapters.sglang.turns import Refusal, Turn, read_ask
from leyline_adapters.vllm.wire import Ask
from leyline_agent.receipt import Reason

ASK = {"session": "s", "claims": [{"source": "h", "start": 0, "end": 4, "at": 0}]}


@pytest.mark.parametrize("params", [None, {}, {"other": 1}, {"leyline": None}, "leyline"])
def test_a_request_without_an_ask_is_left_alone(params: Any) -> None:
    assert read_ask(params) is None


@pytest.mark.parametrize("sent", [ASK, json.dumps(ASK)], ids=["object", "text"])
def test_an_ask_is_text_or_an_object(sent: Any) -> None:
    found = read_ask({"leyline": sent, "__req__": object()})

    assert isinstance(found, Ask)
    assert found.claims[0].end == 4


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("{", "Invalid JSON"),
        (7, "mapping"),
        (["a"], "mapping"),
        ({"session": ""}, "session"),
        ({"session": "s", "claim": []}, "claim: Extra"),
        ({"session": "s", "claims": [{"source": "h", "start": 4, "end": 4, "at": 0}]}, "no tokens"),
        ({"session": "s", "base": "x" * 10_000}, "base"),
    ],
    ids=str,
)
def test_an_ask_that_cannot_be_read_says_why(sent: Any, said: str) -> None:
    found = read_ask({"leyline": sent})

    assert isinstance(found, Refusal)
    assert found.reason is Reason.INVALID_EDIT
    assert said in found.detail
    assert len(found.detail) <= 500


def spliced(prompt: list[int], covered: int, first: int) -> Turn:
    space = Space("x", as_tokens(prompt[:covered]), first)
    return Turn(Owner("tenant", "", "s"), Plan("h", space), prompt)


@pytest.mark.parametrize(
    ("found", "exact", "moved", "prefilled", "first"),
    [
        (0, 0, 0, 10, None),
        (3, 3, 0, 7, None),
        (4, 4, 0, 6, None),
        (6, 4, 2, 4, 4),
        (9, 4, 5, 1, 4),
        (10, 4, 5, 1, 4),  # a look-up without a limit, while the request waits
    ],
)
def test_what_is_told_adds_up(
    found: int, exact: int, moved: int, prefilled: int, first: int | None
) -> None:
    told = spliced(list(range(10)), 8, 4).told(found)

    figures = (told.reused_exact, told.reused_spliced, told.prefilled, told.spliced_from)
    assert figures == (exact, moved, prefilled, first)


def test_a_request_that_nothing_was_brought_for_is_canonical() -> None:
    turn = spliced(list(range(10)), 8, 4)
    assert turn.extra_key == "tenant|leyline:x"

    turn.fell_short("the sources were evicted")
    turn.give_up()

    assert turn.extra_key == "tenant"
    assert turn.plan.space == SHARED
    told = turn.told(6)
    assert (told.reused_exact, told.reason, told.handle) == (6, "evicted", "h")


def test_a_refused_request_has_no_extra_key_of_ours() -> None:
    plan = Plan("", reason=Reason.LAYER_KIND, detail="why")

    assert Turn(None, plan, [1, 2]).extra_key is None
    assert Turn(None, plan, [1, 2]).told(1).reason == "layer_kind"
