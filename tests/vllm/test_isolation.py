"""Spliced KV is served to its own lineage and to nobody else; canonical KV to the tenant."""

from __future__ import annotations

import pytest
from vllm_server import BLOCK, Server
from vllm_texts import edit, spliced, words

from leyline_adapters.vllm.wire import Ask

A, X, B, Q = words(100, 200), words(90, 900), words(180, 300), words(9, 1000)
WHOLE = A + X + B
KEPT = ((0, len(A)), (len(A) + len(X), len(WHOLE)))
PROMPT = A + B + Q
SHARED = len(A) // BLOCK * BLOCK  # What an exact prefix cache finds.


@pytest.fixture(scope="module")
def handle(server: Server) -> str:
    """The handle of the spliced request: session "mine" of tenant "t"."""
    source, _ = server.ask(WHOLE, Ask(session="mine"), salt="t")
    asked = edit(source.handle, *KEPT, session="mine")
    told, _ = server.ask(PROMPT, asked, salt="t", tokens=3)
    assert told.reused_spliced == len(B)
    return told.handle


def test_the_same_prompt_without_claims_is_prefilled(server: Server, handle: str) -> None:
    assert server.cached(server.complete(PROMPT, salt="t")) == SHARED


@pytest.mark.parametrize("session", ["mine", "yours"])
def test_a_session_that_names_no_lineage_gets_none(
    server: Server, handle: str, session: str
) -> None:
    """Not even the session itself; its prompt is other here, so that no plain prefill is met."""
    fresh = [*A, *B[:130], *words(40, 1100 if session == "mine" else 1150)]
    told, _ = server.ask(fresh, Ask(session=session), salt="t")
    assert told.spliced_from is None
    assert told.reused_spliced == 0


@pytest.mark.parametrize(("session", "salt"), [("yours", "t"), ("mine", "u"), ("mine", "")])
def test_a_handle_is_worth_nothing_to_others(
    server: Server, handle: str, session: str, salt: str
) -> None:
    asked = edit(handle, (0, len(PROMPT)), session=session)
    told, answer = server.ask([*PROMPT, 99, 100], asked, salt=salt)
    assert told.reason == "unknown_session"
    assert (told.reused_spliced, told.spliced_from) == (0, None)
    exact = server.complete([*PROMPT, 99, 100], salt=salt)
    assert told.reused_exact <= server.cached(exact)
    assert server.cached(answer) == told.reused_exact


def test_another_tenant_shares_not_even_the_prefix(server: Server, handle: str) -> None:
    assert server.cached(server.complete(PROMPT, salt="nobody")) == 0


def test_the_lineage_itself_is_found(server: Server, handle: str) -> None:
    told, _ = server.ask(PROMPT, edit(handle, (0, len(PROMPT) - 1), session="mine"), salt="t")
    assert (told.prefilled, told.reused_spliced) == (1, len(PROMPT) - 1 - len(A))


def test_a_base_alone_finds_nothing_of_its_lineage(server: Server, handle: str) -> None:
    """What nobody claims is computed, or canonical: a FORGET relies on it."""
    told, answer = server.ask(
        spliced(PROMPT, (0, len(PROMPT))), Ask(session="mine", base=handle), salt="t"
    )
    assert (told.reused_spliced, told.spliced_from) == (0, None)
    assert server.cached(answer) == told.reused_exact
