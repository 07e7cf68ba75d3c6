"""The bundled engine in this process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from leyline_adapters.bundled.body import (
    CAPABILITIES,
    as_body,
    directives_body,
    read_receipt,
    with_commit,
)
from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Directive
from leyline_agent.errors import AdapterError
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.edits import apply_directives, edit_ahead, forget
from leyline_agent.serving.engine import Engine, EngineConfig
from leyline_agent.serving.explain import describe
from leyline_agent.serving.models.embedded import DEFAULT, resolve
from leyline_agent.serving.thread import EngineThread
from leyline_agent.serving.wire import CheckedChatRequest, DirectivesRequest, EditsRequest

__all__ = ["BundledAdapter"]

logger = logging.getLogger("leyline.adapters")

Body = TypeVar("Body", bound=BaseModel)


class BundledAdapter:
    """Takes the calls of a wrapped loop over and serves them here.

    Args:
        service: a chat service; `BundledAdapter.load()` makes one.
        tenant: whose canonical KV may be shared.
    """

    name = "bundled"

    def __init__(self, service: ChatService | None = None, tenant: str = "") -> None:
        self.service = service or _service(DEFAULT, EngineConfig())
        self.tenant = tenant
        self._thread = EngineThread(self.service.scheduler)
        self._told: frozenset[str] = frozenset()

    @classmethod
    def load(
        cls, model: str | Path = DEFAULT, config: EngineConfig | None = None, tenant: str = ""
    ) -> BundledAdapter:
        """Load a model by name, folder, hub name or GGUF file.

        Raises:
            EngineError: the model cannot be fetched or served.
        """
        return cls(_service(model, config or EngineConfig()), tenant)

    @property
    def capabilities(self) -> Capabilities:
        """Every mode, with the full repair set."""
        return CAPABILITIES

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
            logger.warning("the bundled engine ignores %s", ", ".join(sorted(ignored)))
        return parsed


def _checked(kind: type[Body], body: dict[str, Any]) -> Body:
    """A body as the server would take it. Raises AdapterError when it is none."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise AdapterError(
            f"the engine refuses this request: {describe(error.errors())}"
        ) from error


def _service(model: str | Path, config: EngineConfig) -> ChatService:
    engine = Engine.load(resolve(model), config)
    loaded = engine.model
    if loaded is None:
        raise AdapterError("the engine was loaded without a model")
    return ChatService(engine, str(model), loaded.tokenizer)
