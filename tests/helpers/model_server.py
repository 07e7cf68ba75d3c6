"""An OpenAI-compatible server on loopback that a deterministic model answers for."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Refused(Exception):
    """In a model's script: the server answers with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def answer(model, body: dict) -> tuple[int, dict]:
    """The status and the body the model answers a request with."""
    try:
        return 200, model.complete(body)
    except Refused as refused:
        return refused.status, {"error": {"message": f"refused: {refused.status}", "code": "no"}}


@contextmanager
def serving(model) -> Iterator[str]:
    """The base URL of a server that answers chat completions from the model's script."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            status, made = answer(model, json.loads(self.rfile.read(length)))
            payload = json.dumps(made).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1"
        httpd.shutdown()
        thread.join()
