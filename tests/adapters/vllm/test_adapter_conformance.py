"""The contract of adapters, kept against a server that keeps the wire's."""

from __future__ import annotations

import pytest
from fake_vllm import FakeVllm

from leyline_adapters.vllm.adapter import VllmAdapter
from leyline_agent.testing.conformance import AdapterConformance


class TestVllm(AdapterConformance):
    """With the connector."""

    @pytest.fixture(autouse=True)
    def _server(self) -> None:
        self.server = FakeVllm()

    def open(self, tenant: str = "") -> VllmAdapter:
        return VllmAdapter("http://vllm", tenant=tenant, transport=self.server.transport)


class TestPlainVllm(TestVllm):
    """Without it: edits are prefilled again, and that is said."""

    honours = False

    @pytest.fixture(autouse=True)
    def _server(self) -> None:
        self.server = FakeVllm(connector=False)
