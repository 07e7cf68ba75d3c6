"""An upstream that answers at once: what `proxy.py` calls directly and through the proxy."""

from __future__ import annotations

import json
import sys
from typing import Any

import uvicorn

SIZES: dict[str, int] = {}
"""Characters of the request bodies that came in under each label."""


async def app(scope: Any, receive: Any, send: Any) -> None:
    """A reply that calls a tool; `GET /sizes` tells how much came in under each label."""
    size, more = 0, True
    while more:
        event = await receive()
        size += len(event.get("body", b""))
        more = event.get("more_body", False)
    headers = dict(scope["headers"])
    if scope["path"] == "/sizes":
        body = json.dumps(SIZES).encode()
    elif scope["method"] == "GET":
        body = b'{"object": "list", "data": []}'
    else:
        label = headers[b"x-label"].decode()
        SIZES[label] = SIZES.get(label, 0) + size
        body = _reply(headers[b"x-turn"].decode(), size // 4)
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": body})


def _reply(turn: str, tokens: int) -> bytes:
    call = {"name": "bash", "arguments": '{"command": "make test"}'}
    message = {
        "role": "assistant",
        "content": "I will look.",
        "tool_calls": [{"id": f"call_{turn}", "type": "function", "function": call}],
    }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": tokens, "completion_tokens": 20, "total_tokens": tokens + 20}
    return json.dumps({"id": turn, "choices": [choice], "usage": usage}).encode()


if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, lifespan="off")
