"""The adapters of this distribution keep the contract that others can test theirs by."""

from __future__ import annotations

from typing import Any

import pytest

from leyline_adapters.bundled.http import HttpAdapter
from leyline_adapters.bundled.in_process import BundledAdapter
from leyline_agent.adapter import Capabilities
from leyline_agent.directive import Mode
from leyline_agent.serving.chat import ChatService
from leyline_agent.testing import MockAdapter
from leyline_agent.testing.conformance import AdapterConformance


class TestBundled(AdapterConformance):
    """The engine in this process."""

    @pytest.fixture(autouse=True)
    def _service(self, tiny_service: ChatService) -> None:
        self.service = tiny_service

    def open(self, tenant: str = "") -> BundledAdapter:
        return BundledAdapter(self.service, tenant)


class TestHttp(AdapterConformance):
    """The same engine behind a socket."""

    @pytest.fixture(autouse=True)
    def _url(self, live_url: str) -> None:
        self.url = live_url

    def open(self, tenant: str = "") -> HttpAdapter:
        return HttpAdapter(self.url, tenant or None, attempts=1)


class TestMock(AdapterConformance):
    """The simulated engine."""

    tenants = False

    @pytest.fixture(autouse=True)
    def _adapter(self) -> None:
        self.adapter = MockAdapter()

    def open(self, tenant: str = "") -> Any:
        return self.adapter


class TestMockThatOnlyForgets(TestMock):
    """An engine that can do next to nothing."""

    @pytest.fixture(autouse=True)
    def _adapter(self) -> None:
        self.adapter = MockAdapter(capabilities=Capabilities(modes=frozenset({Mode.FORGET})))
