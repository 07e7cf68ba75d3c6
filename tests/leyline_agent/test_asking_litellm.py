"""Questions of policies, asked through litellm of a server of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import leyline_agent as leyline
from leyline_agent import Ask, Edit, Session, Trajectory, asking
from leyline_agent.asking import by_litellm
from leyline_agent.question import Answered, at_once

TASK = {"role": "user", "content": "task"}


class Title(leyline.Policy):
    """Ask for a title of the conversation, and put it behind the task."""

    model: str = ""

    def edits(self, trajectory: Trajectory) -> Iterator[Edit | Ask]:
        if any(m["content"].startswith("Title") for m in trajectory.messages):
            return
        if "title" in trajectory.answers:
            title = {"role": "user", "content": f"Title: {trajectory.answers['title']}"}
            yield Edit(1, 1, (title,))
        else:
            yield Ask("title", ({"role": "user", "content": "A title, please."},), self.model)


class Upstream(ThreadingHTTPServer):
    """An OpenAI-compatible server that answers as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status, self.delay = 200, 0.0
        self.message: dict[str, Any] = {"role": "assistant", "content": "Of bugs"}
        self.finish_reason = "stop"
        self.requests: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has given up is no error of the server's."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Upstream

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.server.requests.append(json.loads(self.rfile.read(length)))
        time.sleep(self.server.delay)
        body = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "m",
                "choices": [
                    {
                        "index": 0,
                        "message": self.server.message,
                        "finish_reason": self.server.finish_reason,
                    }
                ],
                "usage": {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13},
            }
            if self.server.status == 200
            else {"error": {"message": "slow down", "type": "x", "code": "y"}}
        ).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    server = Upstream()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("OPENAI_API_BASE", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def question(**fields: Any) -> Ask:
    return Ask("k", ({"role": "user", "content": "A title?"},), "openai/m", **fields)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
class TestLitellm:
    def test_it_asks_the_model_that_the_policy_names(self, upstream: Upstream) -> None:
        assert by_litellm(question(max_tokens=77)) == Answered("Of bugs", 13)
        (request,) = upstream.requests
        assert request["model"] == "m"
        assert request["max_tokens"] == 77
        assert request["messages"] == [{"role": "user", "content": "A title?"}]

    def test_in_a_session_it_is_the_default(self, upstream: Upstream) -> None:
        session = Session(Title(model="openai/m"))
        session.begin([TASK]).finish("hm")
        running = session._asking._running
        assert running is not None
        assert running.done.wait(30)
        turn = session.begin([*session.history, TASK])
        assert turn.request["messages"][1]["content"] == "Title: Of bugs"
        assert session._state.spent == {"title": 13}

    def test_no_retry_of_its_own(self, upstream: Upstream) -> None:
        upstream.status = 429
        with pytest.raises(Exception, match="slow down") as raised:
            by_litellm(question())
        assert type(raised.value).__name__ == "RateLimitError"
        assert len(upstream.requests) == 1

    def test_a_timeout(self, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(asking, "TIMEOUT", 0.2)
        upstream.delay = 1.0
        with pytest.raises(Exception, match="(?i)timed? ?out"):
            by_litellm(question())

    def test_answers_that_are_none(self, upstream: Upstream) -> None:
        upstream.finish_reason = "length"
        with pytest.raises(leyline.AdapterError, match="cut off at 1000 tokens"):
            by_litellm(question())
        function = {"name": "f", "arguments": "{}"}
        call = {"id": "c", "type": "function", "function": function}
        upstream.message = {"role": "assistant", "content": None, "tool_calls": [call]}
        upstream.finish_reason = "tool_calls"
        with pytest.raises(leyline.AdapterError, match="openai/m answered without text"):
            by_litellm(question())

    def test_without_a_model_it_says_what_to_write(self) -> None:
        with pytest.raises(leyline.AdapterError, match=r"title:model=\.\.\., as litellm calls it"):
            by_litellm(Ask("k", (), policy="title"))

    @pytest.mark.parametrize("fulfil", [None, at_once(by_litellm)])
    def test_in_an_instrumented_process_the_question_is_no_turn_of_the_agent_s(
        self, upstream: Upstream, fulfil: Any
    ) -> None:
        import litellm

        messages: list[Any] = [TASK]
        title = Title(model="openai/m")
        with leyline.instrument_litellm(policies=title, fulfil=fulfil) as instrumented:
            for _ in range(3):
                response = litellm.completion(model="openai/m", messages=messages)
                messages = [*messages, response.choices[0].message, TASK]
                running = instrumented.sessions[-1]._asking._running
                assert running is None or running.done.wait(30)
            (session,) = instrumented.sessions
        assert len(session.receipts) == 3
        assert len(upstream.requests) == 4
        assert session.view[1]["content"] == "Title: Of bugs"

    def test_in_a_wrapped_loop_the_question_is_no_turn_of_the_agent_s(
        self, upstream: Upstream
    ) -> None:
        import litellm

        @leyline.wrap(policies=Title(model="openai/m"))
        def loop() -> list[Any]:
            messages: list[Any] = [TASK]
            for _ in range(3):
                response = litellm.completion(model="openai/m", messages=messages)
                messages = [*messages, response.choices[0].message, TASK]
                running = leyline.current_session()._asking._running  # type: ignore[union-attr]
                assert running is None or running.done.wait(30)
            return messages

        assert len(loop()) == 7
        (session,) = loop.leyline.sessions  # type: ignore[attr-defined]
        assert len(session.receipts) == 3
        assert len(upstream.requests) == 4
        assert session.view[1]["content"] == "Title: Of bugs"
