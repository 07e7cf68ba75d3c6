"""Text completions: a prompt as text or token ids, with the 4-tuple as the client gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any

from leyline_agent.errors import InvalidRequest
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService, Step, head
from leyline_agent.serving.chat_turn import tell, usage
from leyline_agent.serving.engine import Run
from leyline_agent.serving.generate import Generation
from leyline_agent.serving.render import well_formed
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.turns import Turn, plan_tokens
from leyline_agent.serving.wire import CompletionRequest, TokenCommit

__all__ = ["completion_steps", "complete_text"]


def complete_text(
    service: ChatService, request: CompletionRequest, tenant: str = ""
) -> dict[str, Any]:
    """A text completion as a dictionary.

    Raises:
        InvalidRequest: an empty prompt, or token ids the model does not have.
        EditError: directives that do not fit the base version's tokens.
        EngineError: the prompt does not fit.
    """
    return service.drain(completion_steps(service, request, tenant, stream=False))


def completion_steps(
    service: ChatService, request: CompletionRequest, tenant: str = "", *, stream: bool
) -> Generator[Step, None, None]:
    """A request in steps, as `ChatService.steps`. The last body has the ids that were sampled."""
    commit = request.leyline
    tokens = _tokens(service, request)
    session = service.session(tenant, commit.session) if commit else None
    digest = hashlib.blake2b(repr(tokens).encode(), digest_size=16).hexdigest()

    def plan() -> Turn:
        return plan_tokens(tokens, tenant, session, commit, digest)

    start = head("text_completion", service.name, "cmpl")
    with service.running(plan) as (turn, run):
        yield from service.prefill(run)
        generation = Generation(run, service.chat, request, limit=request.max_tokens)
        for text in generation:
            yield {**start, "choices": [_choice(text)]} if stream and text else None
        receipt = tell(run.receipt, turn, commit)
        if session is not None and commit is not None:
            _commit(service, session, commit, run, receipt, digest)
    generated = generation.result
    ended = _choice("" if stream else generated.text, generated.finish_reason)
    more = {
        "usage": usage(receipt, len(generated.tokens)),
        "leyline": receipt.model_dump(mode="json"),
    }
    choices = [{**ended, "token_ids": generated.tokens}]
    if stream and request.include_usage:
        yield {**start, "choices": choices}
        choices = []
    elif stream:
        del more["usage"]
    yield {**start, "choices": choices, **more}


def _tokens(service: ChatService, request: CompletionRequest) -> list[int]:
    tokens = request.prompt
    if isinstance(tokens, str):
        tokens = service.chat.tokenizer.encode(well_formed(tokens))
    if not tokens:
        raise InvalidRequest("the prompt is empty; send some text or token ids")
    service.check_ids(tokens)
    if request.leyline is not None:
        for directive in request.leyline.directives:
            service.check_ids(directive.replacement)
    return list(tokens)


def _commit(
    service: ChatService,
    session: EngineSession,
    commit: TokenCommit,
    run: Run,
    receipt: Receipt,
    digest: str,
) -> None:
    with service.exclusive():
        version = Version(
            number=commit.version,
            base=commit.base_version,
            digest=digest,
            messages=None,
            sequence=run.finish(),
            prompt_len=receipt.prompt,
            receipt=receipt,
        )
        session.add(version)


def _choice(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
