import asyncio
import json

from leyline_adapters.proxy.app import Proxy
from leyline_adapters.proxy.upstream import Upstream
from leyline_agent.policy import parse


class Sessions:
    policy = parse("redact")


def asked(path, data):
    sent = []

    async def send(event):
        sent.append(event)

    async def receive():
        return {"type": "http.request", "body": data, "more_body": False}

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    asyncio.run(Proxy(Upstream("http://127.0.0.1:9"), None, Sessions())(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def test_what_cannot_be_edited_is_not_sent_where_a_policy_redacts():
    status, body = asked("/v1/chat/completions", b"[1]")
    assert (status, body["error"]["code"]) == (500, "call_refused")
    status, body = asked("/v1/messages", b"[1]")
    assert (status, body["type"], body["error"]["type"]) == (500, "error", "api_error")
    assert "was not made" in body["error"]["message"]
