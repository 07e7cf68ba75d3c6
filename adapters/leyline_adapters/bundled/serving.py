"""A chat service in this process as an adapter: what engines of our own make share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leyline_adapters.bundled.body import as_body, directives_body, read_receipt, with_commit
from leyline_agent.adapter import Commit, Request
from leyline_agent.directive import Directive
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.edits import apply_directives, edit_ahead, forget
from leyline_agent.serving.explain import describe
from leyline_agent.serving.thread import EngineThread
from leyline_agent.serving.wire import CheckedChatRequest, DirectivesRequest, EditsRequest

__all__ = ["ServiceAdapter"]

logger = logging.getLogger("leyline.adapters")

Body = TypeVar("Body", bound=BaseModel)


class ServiceAdapter:
    """Takes the calls of a wrapped loop over and serves them here.

    Args:
        service: a chat service.
        tenant: whose canonical KV may be shared.
        engine: what the engine is called where it is told of.
    """

    def __init__(self, service: ChatService, tenant: str, engine: str) -> None:
        self.service = service
        self.tenant = tenant
        self._engine = engine
        self._thread = EngineThread(service.scheduler)
        self._told: frozenset[str] = frozenset()

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request with the `leyline` field in its extra body."""
        return with_commit(request, commit)

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt of a response or of a stream's last chunk."""
        return read_receipt(response)

    def complete(self, request: Request) -> dict[str, Any]:
        """A chat completion."""
        return self.service.complete(self._parsed(request, stream=False), self.tenant)

    def stream(self, request: Request) -> Iterator[dict[str, Any]]:
        """The chunks of a streamed completion; close it to abandon the turn."""
        return self.service.stream(self._parsed(request, stream=True), self.tenant)

    async def acomplete(self, request: Request) -> dict[str, Any]:
        """`complete`, without blocking the event loop; cancelled, it stops."""
        parsed = self._parsed(request, stream=False)
        answer = await self._thread.call(self.service.job(parsed, self.tenant, stream=False))
        assert answer is not None
        return answer

    async def astream(self, request: Request) -> AsyncIterator[dict[str, Any]]:
        """`stream`, without blocking the event loop; it runs ahead of whoever reads slowly."""
        parsed = self._parsed(request, stream=True)
        work = self._thread.submit(self.service.job(parsed, self.tenant, stream=True))
        try:
            async for chunk in work:
                yield chunk
        finally:
            work.cancel()

    def apply(self, session: str, base_version: int, directives: list[Directive]) -> Receipt:
        """Apply token-space directives to a session, atomically."""
        request = _checked(DirectivesRequest, directives_body(base_version, directives))
        return apply_directives(self.service, session, request, self.tenant)

    def edit_ahead(self, request: Request, commit: Commit) -> Receipt:
        """Apply a commit's edits now, while a tool runs."""
        body = as_body(with_commit(request, commit), stream=False)
        return edit_ahead(self.service, _checked(EditsRequest, body), self.tenant)

    def queue(self) -> int:
        """Requests that run or wait at the engine."""
        scheduler = self.service.scheduler
        return scheduler.num_running + scheduler.num_waiting

    def forget(self, session: str, edit_id: str) -> Receipt:
        """Compute again what absorbed the span an earlier edit removed."""
        return forget(self.service, session, edit_id, self.tenant)

    def _parsed(self, request: Request, *, stream: bool) -> CheckedChatRequest:
        parsed = _checked(CheckedChatRequest, as_body(request, stream=stream))
        if ignored := frozenset(parsed.ignored) - self._told:
            self._told |= ignored
            logger.warning("%s ignores %s", self._engine, ", ".join(sorted(ignored)))
        return parsed


def _checked(kind: type[Body], body: dict[str, Any]) -> Body:
    """A body as the server would take it. Raises AdapterError when it is none."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise AdapterError(
            f"the engine refuses this request: {describe(error.errors())}"
        ) from error
