"""One vLLM server with the connector, for all tests of this folder: `make test-vllm`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vllm_server import Server, running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, with the embedded model."""
    with running(tmp_path_factory.mktemp("vllm")) as found:
        yield found
