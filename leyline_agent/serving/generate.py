"""Generation: from a computed prompt to a reply, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from leyline_agent.errors import EngineError
from leyline_agent.serving.detokenize import Detokenizer
from leyline_agent.serving.render import ChatRenderer
from leyline_agent.serving.run import Need, Run
from leyline_agent.serving.wire import SamplingRequest

__all__ = ["Generated", "Generation"]


@dataclass
class Generated:
    """What was generated.

    Attributes:
        text: the reply, without stop strings.
        tokens: the ids sampled, without the token that ended the turn.
        finish_reason: "stop" or "length".
        logprobs: one OpenAI entry a token, where asked for.
    """

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    logprobs: list[dict[str, Any]] | None = None


class Generation:
    """Generates a reply; iterating yields the text that became certain with each token.

    In between it yields its run to have it computed, or the room it lacks to wait for it.

    Args:
        run: the computed prompt; it is extended by every token kept.
        chat: whose tokenizer and end-of-turn tokens.
        request: sampling parameters and stop strings.
        limit: at most this many tokens; None for what the context still holds.
        top_logprobs: report log probabilities of this many alternatives.
    """

    def __init__(
        self,
        run: Run,
        chat: ChatRenderer,
        request: SamplingRequest,
        *,
        limit: int | None = None,
        top_logprobs: int | None = None,
    ) -> None:
        self.run = run
        self.chat = chat
        self.sampler = run.engine.sampler(request)
        self.detokenizer = Detokenizer(chat.tokenizer, stop=request.stop_strings)
        room = run.engine.max_len - len(run.sequence)
        self.limit = room if limit is None else min(limit, room)
        self.result = Generated(logprobs=None if top_logprobs is None else [])
        self.top_logprobs = top_logprobs

    @property
    def cut(self) -> bool:
        """Whether a stop string ended the reply: its ids then say more than its text."""
        return self.detokenizer.stopped is not None

    def __iter__(self) -> Iterator[str | Need]:
        for number in range(self.limit):
            token = self._sample()
            if token in self.chat.stop_ids:
                self.result.finish_reason = "stop"
                break
            self.result.tokens.append(token)
            new = self.detokenizer.feed(token)
            self.result.text += new
            if new:
                yield new
            if self.cut:
                self.result.finish_reason = "stop"
                break
            if number + 1 < self.limit:
                yield from self._step(token)
        rest = self.detokenizer.finish()
        self.result.text += rest
        if rest:
            yield rest

    def _step(self, token: int) -> Iterator[Need]:
        run = self.run
        yield from run.engine.when_room(lambda: run.append([token]))
        yield from run.computing()

    def _sample(self) -> int:
        logits = self.run.logits
        if logits is None:
            raise EngineError("no model runs in this engine; it only does the accounting")
        token = self.sampler.sample(logits)
        if self.result.logprobs is not None and self.top_logprobs is not None:
            known = self.sampler.log_probs(logits, token, self.top_logprobs)
            entry = self._named(token, known.chosen)
            entry["top_logprobs"] = [self._named(*pair) for pair in known.top]
            self.result.logprobs.append(entry)
        return token

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        text: str = self.chat.tokenizer.decode([token])
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
