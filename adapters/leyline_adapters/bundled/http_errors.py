"""What can go wrong between the HTTP adapter and its server, and what is tried again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from tenacity import (
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from leyline_agent.errors import AdapterError, ContextOverflow, EngineUnavailable, LeylineError
from leyline_agent.serving.wire import ERROR_CODES

__all__ = ["StreamReader", "check", "policy", "reaching", "result", "retries"]

_TRANSIENT = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)
_TRY_AGAIN = frozenset({429, 502, 503})
_GATEWAY_TIMEOUT = 504  # who waited once that long does not wait again
_TOO_LONG = "maximum context length"  # vLLM's words, which has no code for it
_LONGEST_WAIT = 30.0  # seconds
_backoff = wait_exponential(multiplier=0.2, max=5.0) + wait_random(0, 0.1)


class _Transient(Exception):
    """A failure that may pass.

    Attributes:
        error: what it is when it does not pass.
        after: seconds the server asks to wait; None when it does not say.
    """

    def __init__(self, error: LeylineError, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


def policy(attempts: int) -> dict[str, Any]:
    """Tenacity's arguments, for `Retrying` and `AsyncRetrying` alike."""
    return {
        "retry": retry_if_exception_type(_Transient),
        "stop": stop_after_attempt(attempts),
        "wait": _wait,
        "reraise": True,
    }


@contextmanager
def retries() -> Iterator[None]:
    """Around all attempts: the last failure as the error it is."""
    try:
        yield
    except _Transient as failure:
        raise failure.error from failure.__cause__


@contextmanager
def reaching(url: str, *, again: bool = True) -> Iterator[None]:
    """Around one attempt: httpx's errors as ours; with `again`, those that may pass can be retried.

    Raises:
        EngineUnavailable: nobody answers, too late, or the answer breaks off.
        AdapterError: the address is none.
    """
    try:
        yield
    except _TRANSIENT as error:
        known = EngineUnavailable(
            f"no answer from {url}: {error or type(error).__name__}; is `leyline serve` running "
            "there?"
        )
        raise (_Transient(known) if again else known) from error
    except httpx.TimeoutException as error:
        raise EngineUnavailable(
            f"{url} did not answer in time; wait longer with timeout=, or generate fewer tokens"
        ) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise AdapterError(f"{url!r} is no address of a server: {error}") from error
    except httpx.HTTPError as error:
        raise AdapterError(f"the call to {url} failed: {error or type(error).__name__}") from error


def check(url: str, response: httpx.Response) -> None:
    """Raise what an answer says went wrong, if it does; its body must have been read."""
    if response.is_success:
        return
    status = response.status_code
    error = _error(url, status, _json(response))
    raise _Transient(error, _seconds(response)) if status in _TRY_AGAIN else error


def result(url: str, response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer. Raises AdapterError when it is something else."""
    found = _json(response)
    if not isinstance(found, dict):
        raise AdapterError(f"{url} does not answer with a JSON object; is it a Leyline server?")
    return found


class StreamReader:
    """Reads server-sent events, line by line."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ended = False

    def read(self, line: str) -> dict[str, Any] | None:
        """The chunk in a line; None when there is none.

        Raises:
            LeylineError: what the server says went wrong on the way.
            AdapterError: a line holds no chunk.
        """
        if not line.startswith("data:") or self._ended:
            return None
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            self._ended = True
            return None
        try:
            chunk = json.loads(data)
        except ValueError:
            chunk = None
        if not isinstance(chunk, dict):
            raise AdapterError(f"the stream from {self._url} holds no chunk: {data[:80]!r}")
        if "error" in chunk:
            raise _error(self._url, 500, chunk)
        return chunk

    def end(self) -> None:
        """The stream is over. Raises EngineUnavailable when it broke off."""
        if not self._ended:
            raise EngineUnavailable(f"the stream from {self._url} broke off; send the turn again")


def _error(url: str, status: int, body: Any) -> LeylineError:
    found = body.get("error") if isinstance(body, dict) else None
    told = found if isinstance(found, dict) else {}
    message = str(told.get("message") or "")
    kind = ERROR_CODES.get(str(told.get("code")))
    if kind is None and status == 400 and _TOO_LONG in message:
        kind = ContextOverflow
    if kind is not None:
        return kind(message)
    text = f"{url} answered {status}" + (f": {message}" if message else "")
    if status == 404 and not told.get("code"):  # ours has one
        text += "; is it a Leyline server?"
    away = status in _TRY_AGAIN or status == _GATEWAY_TIMEOUT
    return EngineUnavailable(text) if away else AdapterError(text)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:  # a proxy's page
        return None


def _seconds(response: httpx.Response) -> float | None:
    """`Retry-After` in seconds; a date is left to the backoff."""
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _wait(state: RetryCallState) -> float:
    failure = state.outcome.exception() if state.outcome else None
    if isinstance(failure, _Transient) and failure.after is not None:
        return min(max(failure.after, 0.0), _LONGEST_WAIT)
    return _backoff(state)
