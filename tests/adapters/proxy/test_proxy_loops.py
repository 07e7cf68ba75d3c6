"""A proxy whose upstream is itself says so; proxies in a row are none of its business."""

import socket
from contextlib import closing

import httpx
import pytest

from leyline_adapters.proxy.address import leads_to
from leyline_agent.cli import main
from leyline_agent.cli.serve import listen

CHAT = "/v1/chat/completions"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_an_upstream_that_is_the_proxy_is_refused(capsys, host):
    port = str(free_port())
    with pytest.raises(SystemExit) as end:
        main(["proxy", "--port", port, "--upstream", f"http://{host}:{port}/v1"])
    assert end.value.code == 2
    assert "is where the proxy listens itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("listening", "host", "found"),
    [
        ("127.0.0.1", "::1", False),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "nowhere.invalid", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.2", True),
        ("0.0.0.0", "192.0.2.1", False),
        ("::1", "::1", True),
        ("::1", "::", True),
        ("::", "::1", True),
        ("::", "localhost", True),
    ],
)
def test_which_addresses_lead_to_a_socket(listening, host, found):
    if ":" in listening and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with closing(listen(listening, 0)) as bound:
        port = bound.getsockname()[1]
        assert leads_to(bound, host, port) is found
        assert not leads_to(bound, host, port + 1)


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses"])
def test_a_request_that_comes_back_is_an_error(start, provider, task, path):
    last = start(provider.url, adapter="openai")
    first = start(last.url, adapter="openai")
    last.upstream._origin = first.url  # as a balancer does that knows both
    answer = httpx.post(first.url + path, json={"messages": task, "max_tokens": 9}, timeout=10)
    assert answer.status_code == 508
    assert "came back to the proxy" in answer.json()["error"]["message"]
    assert provider.requests == []


def test_proxies_may_stand_in_a_row(start, provider, task):
    last = start(provider.url, adapter="openai")
    first = start(last.url, adapter="openai")
    assert httpx.post(first.url + CHAT, json={"messages": task}).status_code == 200
    assert len(provider.requests) == 1
