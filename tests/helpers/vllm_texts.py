"""Prompts for a vLLM server, as token ids, and the claims that edits of them make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from leyline_adapters.vllm.wire import Ask, Claim

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def tokenizer() -> Any:
    """The served model's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(os.environ["LEYLINE_VLLM_MODEL"])


@cache
def _document() -> tuple[int, ...]:
    # A text that nobody edits: what the tests compare depends on it.
    text = (ROOT / "LICENSE").read_text()
    return tuple(tokenizer()(text)["input_ids"])


def words(count: int, start: int) -> list[int]:
    """`count` tokens of English, from token `start` of a long document."""
    document = _document()
    assert start + count <= len(document), "the document is too short"
    return list(document[start : start + count])


def runs(source: str, *kept: tuple[int, int], at: int = 0) -> tuple[Claim, ...]:
    """Claims of runs [start, end) of a source, one behind the other from `at` on."""
    claims = []
    for start, end in kept:
        claims.append(Claim(source=source, start=start, end=end, at=at))
        at += end - start
    return tuple(claims)


def edit(source: str, *kept: tuple[int, int], session: str = "s", **more: Any) -> Ask:
    """An ask that keeps runs of one source, and continues its lineage."""
    return Ask(session=session, base=source, claims=runs(source, *kept), **more)


def spliced(tokens: Sequence[int], *kept: tuple[int, int]) -> list[int]:
    """The tokens of those runs."""
    return [token for start, end in kept for token in tokens[start:end]]
