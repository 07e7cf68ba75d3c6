"""An adapter that records what it is asked and simulates the engine behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from leyline_agent.adapter import Capabilities, Commit, Request
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError
from leyline_agent.message import copy
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.testing.engine import SimulatedEngine
from leyline_agent.testing.model import Answer, DeterministicModel, answer, chunks

__all__ = ["MockAdapter"]

EVERYTHING = Capabilities(modes=frozenset(Mode), repair="boundary", edit_ahead=True, receipts=True)


class MockAdapter:
    """A `CallingAdapter` for tests: a scripted model behind a simulated engine.

    Args:
        model: says the replies; "ok" for ever when None.
        capabilities: what the simulated engine can do; everything but tokens when None.

    Attributes:
        model: the model; `model.requests` is what it was sent.
        commits: every commit prepared, oldest first.
    """

    name = "mock"

    def __init__(
        self, model: DeterministicModel | None = None, *, capabilities: Capabilities = EVERYTHING
    ) -> None:
        self.capabilities = capabilities
        self.model = model or DeterministicModel("ok", repeat=True)
        self.commits: list[Commit] = []
        self._engine = SimulatedEngine(capabilities)
        self._answered: dict[tuple[str, int, int, str], Answer] = {}
        self._failures: list[tuple[BaseException, bool]] = []

    def fail(self, error: BaseException, *, answered: bool = False) -> None:
        """Let the next call raise `error`; `answered`: after the engine has done its work."""
        self._failures.append((error, answered))

    def prepare(self, request: Request, commit: Commit) -> Request:
        """The request with the commit in its extra body."""
        self.commits.append(commit)
        body = {**(request.get("extra_body") or {}), "leyline": commit.model_dump(mode="json")}
        return {**request, "extra_body": body}

    def receipt(self, response: Mapping[str, Any]) -> Receipt | None:
        """The receipt of a response."""
        found = response.get("leyline")
        return None if found is None else Receipt.model_validate(found)

    def complete(self, request: Request) -> Answer:
        """A completion; with a commit in the request, what the engine did comes with it."""
        error, answered = self._failures.pop(0) if self._failures else (None, False)
        if error is not None and not answered:
            raise error
        body = (request.get("extra_body") or {}).get("leyline")
        made = self.model.complete(request) if body is None else self._serve(request, body)
        if error is not None:
            raise error
        return made

    def stream(self, request: Request) -> Iterator[Answer]:
        """`complete` in chunks; the receipt is in the last one."""
        return iter(list(chunks(self.complete(request))))

    async def acomplete(self, request: Request) -> Answer:
        """`complete`."""
        return self.complete(request)

    async def astream(self, request: Request) -> AsyncIterator[Answer]:
        """`stream`."""
        for chunk in self.stream(request):
            yield chunk

    def edit_ahead(self, request: Request, commit: Commit) -> Receipt:
        """Do a commit's edits now."""
        if not self.capabilities.edit_ahead:
            raise AdapterError("this mock cannot edit ahead; give it the capability")
        self.commits.append(commit)
        return self._engine.serve(commit, request["messages"])

    def apply(self, session: str, base_version: int, directives: list[Directive]) -> Receipt:
        """Not to be had: the simulated engine knows messages, no tokens."""
        raise AdapterError("the mock's engine knows no tokens; apply directives to a real one")

    def _serve(self, request: Request, body: Mapping[str, Any]) -> Answer:
        commit = Commit.model_validate(body)
        key = (commit.session, commit.base_version, commit.version, commit.view_digest)
        if key in self._answered:
            again = self._answered[key]
            if "leyline" in again:
                again = Answer({**again, "leyline": {**again["leyline"], "reason": Reason.RETRY}})
            return again
        made = self.model.complete({**request, "messages": list(map(copy, request["messages"]))})
        receipt = self._engine.serve(commit, request["messages"])
        self._engine.add_reply(commit, made["choices"][0]["message"])
        made = self._answered[key] = self._told(made, receipt)
        return made

    def _told(self, made: Answer, receipt: Receipt) -> Answer:
        usage = made["usage"]
        usage["prompt_tokens"] = receipt.prompt
        usage["total_tokens"] = receipt.prompt + usage["completion_tokens"]
        usage["prompt_tokens_details"]["cached_tokens"] = receipt.reused
        if self.capabilities.receipts:
            made["leyline"] = answer(receipt.model_dump(mode="json"))
        return made
