"""Text completions: a prompt as text or token ids, with the 4-tuple as the client gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from leyline_agent.errors import InvalidRequest
from leyline_agent.receipt import Receipt
from leyline_agent.serving.chat import ChatService, head
from leyline_agent.serving.chat_turn import tell, usage
from leyline_agent.serving.generate import Generation
from leyline_agent.serving.render import well_formed
from leyline_agent.serving.run import Need, Run
from leyline_agent.serving.scheduler import Job, Steps
from leyline_agent.serving.sessions import EngineSession, Version
from leyline_agent.serving.turns import Turn, plan_tokens
from leyline_agent.serving.wire import CompletionRequest, TokenCommit

__all__ = ["complete_text", "completion_job"]


def complete_text(
    service: ChatService, request: CompletionRequest, tenant: str = ""
) -> dict[str, Any]:
    """A text completion as a dictionary.

    Raises:
        InvalidRequest: an empty prompt, or token ids the model does not have.
        EditError: directives that do not fit the base version's tokens.
        EngineError: the prompt does not fit.
    """
    answer = service.scheduler.run(completion_job(service, request, tenant, stream=False))
    assert answer is not None
    return answer


def completion_job(
    service: ChatService, request: CompletionRequest, tenant: str = "", *, stream: bool
) -> Job[dict[str, Any] | None]:
    """A request for the scheduler, as `ChatService.job`. Its last body has the ids sampled."""
    session = request.leyline.session if request.leyline else None
    return Job(lambda: _steps(service, request, tenant, stream), service.key(tenant, session))


def _steps(
    service: ChatService, request: CompletionRequest, tenant: str, stream: bool
) -> Steps[dict[str, Any] | None]:
    commit = request.leyline
    tokens = _tokens(service, request)
    session = service.session(tenant, commit.session) if commit else None
    digest = hashlib.blake2b(repr(tokens).encode(), digest_size=16).hexdigest()

    def plan() -> Turn:
        return plan_tokens(tokens, tenant, session, commit, digest)

    start = head("text_completion", service.name, "cmpl")
    turn, run = yield from service.running(plan)
    try:
        generation = Generation(run, service.chat, request, limit=request.max_tokens)
        for item in generation:
            if isinstance(item, Need):
                yield item
            elif stream:
                yield {**start, "choices": [_choice(item)]}
        receipt = tell(run.receipt, turn, commit)
        if session is not None and commit is not None:
            _commit(service, session, commit, run, receipt, digest, generation.result.tokens)
    finally:
        service.engine.abandon(run)
    generated = generation.result
    ended = _choice("" if stream else generated.text, generated.finish_reason)
    more = {
        "usage": usage(receipt, len(generated.tokens)),
        "leyline": receipt.model_dump(mode="json"),
    }
    choices = [{**ended, "token_ids": generated.tokens}]
    if not stream:
        return {**start, "choices": choices, **more}
    if request.include_usage:
        yield {**start, "choices": choices}
        choices = []
    else:
        del more["usage"]
    yield {**start, "choices": choices, **more}
    return None


def _tokens(service: ChatService, request: CompletionRequest) -> list[int]:
    tokens = request.prompt
    if isinstance(tokens, str):
        service.chat.check_size([{"role": "user", "content": tokens}])
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
    sampled: Sequence[int],
) -> None:
    with service.exclusive():
        sequence = run.finish()
        version = Version(
            number=commit.version,
            base=commit.base_version,
            digest=digest,
            messages=None,
            sequence=sequence,
            prompt_len=receipt.prompt,
            receipt=receipt,
            pending=tuple(sampled[len(sequence) - receipt.prompt :]),
        )
        session.add(version)


def _choice(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}
