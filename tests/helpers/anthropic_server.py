"""A server on this machine that speaks Anthropic's Messages API and refuses what the API does."""

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from leyline_adapters.anthropic.messages import to_chat
from leyline_adapters.anthropic.replies import to_message


class Scripted:
    """What the server does.

    Attributes:
        model: answers.
        refusal: why a body would be refused; "" when it would not.
        faults: what comes instead of the next answers: (status, headers), "sleep" for one that is
            late, "break" for half of a stream.
        requests: every request that was answered, its headers as `headers`.
        usages: the usage of every answer.
        tells_all: whether a stream's last figures have its input, too, as newer servers' do.
    """

    def __init__(self, model, refusal):
        self.model, self.refusal = model, refusal
        self.faults, self.requests, self.usages, self.extras = [], [], [], {}
        self.tells_all = False

    def answer(self, body, headers):
        """(status, headers, pieces of the body)."""
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, tuple):
            return fault[0], fault[1], [_error("rate_limit_error", "slow down")]
        if fault == "sleep":
            time.sleep(0.4)
        problem = self.refusal(body)
        if problem:
            return 400, {}, [_error("invalid_request_error", problem)]
        self.requests.append({**body, "headers": headers})
        conversation = to_chat(body)
        made = self.model.complete({"messages": conversation.messages, "tools": conversation.tools})
        answer = {**to_message(made), **self.extras}
        self.usages.append(answer["usage"])
        if not body.get("stream"):
            return 200, {"content-type": "application/json"}, [json.dumps(answer).encode()]
        told = [*_events(answer, self.tells_all)]
        if fault == "break":
            told = told[: len(told) // 2]
        pieces = [f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in told]
        return 200, {"content-type": "text/event-stream"}, pieces


def _events(answer, tells_all):
    """The events of an answer, its blocks in several pieces."""
    kept = {"id", "type", "role", "model", "usage"}
    empty = {"content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**empty, **{k: answer[k] for k in kept}}}
    for index, block in enumerate(answer["content"]):
        start, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    end = {key: answer[key] for key in ("stop_reason", "stop_sequence")}
    more = {k: v for k, v in answer.items() if k not in (*kept, *empty)}
    usage = answer["usage"] if tells_all else {"output_tokens": answer["usage"]["output_tokens"]}
    yield {"type": "message_delta", "delta": end, "usage": usage, **more}
    yield {"type": "message_stop"}


def _pieces(block):
    if block["type"] == "tool_use":
        told = json.dumps(block["input"])
        half = len(told) // 2
        parts = [
            {"type": "input_json_delta", "partial_json": part}
            for part in (told[:half], told[half:])
        ]
        return {**block, "input": {}}, parts
    if block["type"] == "thinking":
        return {**block, "thinking": "", "signature": ""}, [
            {"type": "thinking_delta", "thinking": block["thinking"]},
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    words = block["text"].split(" ")
    parts = [" ".join(words[:1]), *(" " + word for word in words[1:])]
    return {**block, "text": ""}, [{"type": "text_delta", "text": part} for part in parts]


def _error(kind, message):
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


@contextmanager
def serving(scripted):
    """The base URL of the server while it runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            length = int(self.headers["content-length"])
            body = json.loads(self.rfile.read(length))
            broken = scripted.faults[:1] == ["break"]
            status, headers, pieces = scripted.answer(body, dict(self.headers))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            whole = b"".join(pieces)
            self.send_header("content-length", str(len(whole) + broken))
            self.send_header("connection", "close")
            with suppress(BrokenPipeError):  # Whoever asked has waited long enough.
                self.end_headers()
                self.wfile.write(whole)
            self.close_connection = True

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            httpd.shutdown()
            thread.join()
