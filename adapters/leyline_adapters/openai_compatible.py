"""Plain OpenAI-compatible providers: messages go out edited, nothing is added to the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline_agent import response as reading
from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Mode
from leyline_agent.receipt import Receipt

__all__ = ["OpenAICompatibleAdapter"]


class OpenAICompatibleAdapter:
    """For providers with an exact prefix cache at best: whatever follows an edit is prefilled.

    The receipt is what `usage.prompt_tokens_details.cached_tokens` says.
    """

    name = "openai"
    capabilities = Capabilities(modes=frozenset({Mode.FORGET}))

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request as it is."""
        return request

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt in `usage`; None where the provider counts nothing."""
        usage = reading.usage(response)
        return None if usage is None else Receipt.from_usage(usage)
