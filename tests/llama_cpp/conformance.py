"""The contract of adapters, kept by llama.cpp."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter
from leyline_agent.testing.conformance import AdapterConformance


class TestLlamaCpp(AdapterConformance):
    """llama.cpp in this process."""

    # A last token that is decoded alone differs in its last bits from one decoded in a batch.
    exact = False

    @pytest.fixture(autouse=True)
    def _opened(self, opened: Callable[[str], LlamaCppAdapter]) -> None:
        self._open = opened

    def open(self, tenant: str = "") -> LlamaCppAdapter:
        return self._open(tenant)
