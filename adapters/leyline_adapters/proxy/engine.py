"""Which engine is upstream: what it can do with edits, and how it is told of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from leyline_adapters.bundled.body import CAPABILITIES, read_receipt, with_commit
from leyline_adapters.proxy.dialect import Dialect
from leyline_adapters.proxy.upstream import Broken, Upstream
from leyline_agent.adapter import Adapter, Commit, Request, as_adapter
from leyline_agent.receipt import Receipt

__all__ = ["Engine", "Given", "LeylineServer"]

logger = logging.getLogger("leyline.proxy")

Given = Literal["auto", "openai", "http"]


class LeylineServer:
    """A `leyline serve` that the proxy's own calls go to: it is told of edits, and splices.

    It has the adapter `http` in all but the calls. Edits ahead of a call would be calls too, under
    a key that is the client's, so there are none.
    """

    name = "http"
    capabilities = CAPABILITIES.model_copy(update={"edit_ahead": False})

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request with the `leyline` field in its extra body."""
        return with_commit(request, commit)

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt of a response or of a stream's last chunk."""
        return read_receipt(response)


class Engine:
    """Finds out which adapter the sessions of an upstream take.

    Args:
        upstream: the upstream.
        given: "http" for a `leyline serve`, "openai" for any other server; "auto" asks it.
    """

    def __init__(self, upstream: Upstream, given: Given = "auto") -> None:
        self._upstream = upstream
        self._is_leyline = {"auto": None, "openai": False, "http": True}[given]
        self._adapters: dict[str, Adapter] = {"http": LeylineServer()}
        self._asking = asyncio.Lock()

    @property
    def name(self) -> str:
        """The adapter of chat completions; "auto" as long as nobody knows."""
        return {None: "auto", False: "openai", True: "http"}[self._is_leyline]

    async def look(self) -> None:
        """Ask the upstream, if it is there already and answers without a key."""
        if self._is_leyline is None:
            try:
                self._is_leyline = await self._upstream.is_leyline()
            except Broken as error:
                logger.info("not known yet what is upstream: %s", error)

    async def adapter(self, dialect: Dialect, headers: Iterable[tuple[bytes, bytes]]) -> Adapter:
        """The adapter for sessions of this API.

        Args:
            dialect: the API.
            headers: a client's, with its key.

        Raises:
            Broken: nobody is there who could be asked.
        """
        if dialect.api == "openai" and self._is_leyline is None:
            async with self._asking:
                if self._is_leyline is None:
                    self._is_leyline = bool(await self._upstream.is_leyline(headers))
        name = "http" if dialect.api == "openai" and self._is_leyline else dialect.adapter
        if name not in self._adapters:
            self._adapters[name] = as_adapter(name)
        return self._adapters[name]
