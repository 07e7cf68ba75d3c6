"""A call: the body to send, and the answer as its caller gets it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from leyline_adapters.vllm.client.answers import Streamed, finished
from leyline_adapters.vllm.client.asking import Asking, session_header
from leyline_adapters.vllm.wire import KEY
from leyline_agent.adapter import Commit
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Reason, Receipt

__all__ = ["Call", "PlainCall", "PlannedCall", "commit_of", "unplanned"]

_OWN_WAYS = (
    "continue_final_message",
    "documents",
    "echo",
    "truncate_prompt_tokens",
    "use_beam_search",
)


class Call(Protocol):
    """One call, around which it is a context: left by an exception, it gives up what it held.

    Attributes:
        headers: what goes with it.
    """

    headers: Mapping[str, str]

    def body(self, *, stream: bool = False) -> dict[str, Any]:
        """The JSON body to send."""
        ...

    def settling_body(self, answer: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What to ask behind an answer, or behind the stream; None for nothing."""
        ...

    def finish(
        self, answer: dict[str, Any], word: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The completion to hand on; `word` is what was said to `settling_body`."""
        ...

    def read(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk to hand on; None where there is none."""
        ...

    def end(self, word: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Chunks behind the last one."""
        ...

    def give_up(self) -> None:
        """Nobody waits for the answer."""
        ...

    def __enter__(self) -> Call: ...

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None: ...


class PlannedCall:
    """A turn of a session.

    Args:
        asked: the body that the caller wants sent.
        asking: the turn.
    """

    def __init__(self, asked: Mapping[str, Any], asking: Asking) -> None:
        self._asked = asked
        self._asking = asking
        self.headers: Mapping[str, str] = session_header(asking.session.id)
        self._streamed: Streamed | None = None

    def body(self, *, stream: bool = False) -> dict[str, Any]:
        """What the caller wants, the prompt's tokens and what is asked of the connector."""
        params = self._asking.last_params(stream=stream)
        theirs = self._asked.get("kv_transfer_params") or {}
        params["kv_transfer_params"] = {**theirs, **params["kv_transfer_params"]}
        body = {**self._asked, **params, "stream": stream}
        if stream:
            self._streamed = Streamed(self._asking, self._asked)
            options = self._asked.get("stream_options") or {}
            body["stream_options"] = {**options, "include_usage": True}
        return body

    def settling_body(self, answer: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """What to ask where the connector's word did not come with the answer."""
        assert answer is not None or self._streamed is not None
        whole = answer if self._streamed is None else self._streamed.answer()
        body = self._asking.settling_body(whole or {})
        named = {"model": self._asked["model"]} if "model" in self._asked else {}
        return body and {**body, **named}

    def finish(
        self, answer: dict[str, Any], word: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The completion with its receipt; the turn is committed."""
        return finished(self._asking, answer, self._asked, word)

    def read(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk without what only the adapter asked for."""
        assert self._streamed is not None
        return self._streamed.read(chunk)

    def end(self, word: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """The chunk with `usage` and the receipt; the turn is committed."""
        assert self._streamed is not None
        yield self._streamed.end(word)

    def give_up(self) -> None:
        """What the stages hold is to be given up."""
        self._asking.give_up()

    def __enter__(self) -> PlannedCall:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._asking.__exit__(kind, *rest)


class PlainCall:
    """A call that is none of a session's, or one that cannot be planned.

    Args:
        asked: the body to send.
        commit: the session's, where there is one.
        why: why it cannot be planned.
    """

    def __init__(self, asked: dict[str, Any], commit: Commit | None, why: str) -> None:
        self._asked = asked
        self._commit = commit
        self.headers: Mapping[str, str] = session_header(commit.session) if commit else {}
        self._why = why

    def body(self, *, stream: bool = False) -> dict[str, Any]:
        """What the caller wants."""
        return {**self._asked, "stream": stream}

    def settling_body(self, answer: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """Nothing."""
        return None

    def finish(
        self, answer: dict[str, Any], word: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The completion, with what its `usage` tells as a receipt where a session asked."""
        usage = answer.get("usage")
        if self._commit is None or not isinstance(usage, Mapping):
            return answer
        told = Receipt.from_usage(
            usage,
            session=self._commit.session,
            base_version=self._commit.base_version,
            version=self._commit.version,
            reason=Reason.ENGINE_CANNOT_SPLICE,
            detail=self._why,
        )
        return {**answer, KEY: told.model_dump(mode="json")}

    def read(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk; the one with `usage` has the receipt."""
        return self.finish(chunk)

    def end(self, word: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """No more."""
        return iter(())

    def give_up(self) -> None:
        """It holds nothing."""

    def __enter__(self) -> PlainCall:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        """Nothing is held."""


def unplanned(asked: Mapping[str, Any]) -> str:
    """Why a request is sent as it is, without edits of KV; "" when it is not."""
    if (asked.get("n") or 1) != 1:
        return "a request for several replies is not spliced"
    for name in _OWN_WAYS:
        if asked.get(name):
            return f"a request with {name!r} is not spliced"
    if asked.get("add_generation_prompt") is False:
        return "a request without a generation prompt is not spliced"
    if not all(_is_text(message.get("content")) for message in asked["messages"]):
        return "messages with other things than text are not spliced"
    return ""


def commit_of(request: Mapping[str, Any]) -> Commit | None:
    """The commit in a prepared request's extra body.

    Raises:
        AdapterError: it is none.
    """
    found = (request.get("extra_body") or {}).get("leyline")
    if found is None:
        return None
    try:
        return Commit.model_validate(found)
    except ValidationError as error:
        raise AdapterError(f"the request's `leyline` field is no commit: {error}") from error


def _is_text(content: Any) -> bool:
    if content is None or isinstance(content, str):
        return True
    return isinstance(content, list) and all(
        isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") == "text")
        for part in content
    )
