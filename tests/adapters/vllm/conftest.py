"""A fake of vLLM's server, and an adapter for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_vllm import FakeVllm

from leyline_adapters.bundled import http_errors
from leyline_adapters.vllm.adapter import VllmAdapter


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_errors, "_backoff", lambda state: 0.0)


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm()


@pytest.fixture
def adapter(fake: FakeVllm) -> Iterator[VllmAdapter]:
    with VllmAdapter("http://vllm/v1/", transport=fake.transport) as made:
        yield made
