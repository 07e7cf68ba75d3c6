"""What is sent to the server for a turn, and what is read out of its answers."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from leyline_adapters.vllm.client.account import Answered
from leyline_adapters.vllm.client.planning import Stage
from leyline_adapters.vllm.client.sessions import Session
from leyline_adapters.vllm.client.turn import Turn
from leyline_adapters.vllm.wire import KEY, PROTOCOL, Ask, Claim, Told
from leyline_agent.errors import AdapterError
from leyline_agent.usage import read

__all__ = [
    "COMPLETIONS",
    "Asking",
    "Server",
    "cached_tokens",
    "chat_body",
    "sampled_tokens",
    "session_header",
    "told_in",
]

COMPLETIONS = "/v1/completions"

_OPENAI = frozenset(
    "messages tools tool_choice parallel_tool_calls temperature top_p max_tokens "
    "max_completion_tokens stop seed n presence_penalty frequency_penalty logit_bias logprobs "
    "top_logprobs response_format stream_options user reasoning_effort".split()
)
"""Fields of a chat completion; a client library's own arguments stay here."""


@dataclass
class Server:
    """What is known of the server, and shared by its turns.

    Attributes:
        salt: the tenant's cache salt; "" for the common one.
        forget_texts: called when a turn has redacted something.
        connected: whether it has the connector; None as long as nobody knows.
        mute: its streams end without the connector's word.
    """

    salt: str
    forget_texts: Callable[[], None]
    connected: bool | None = None
    mute: bool = False


@dataclass
class Asking:
    """The requests of one turn, stage by stage.

    Attributes:
        session: whose turn it is.
        turn: the turn.
        server: who is asked.
        started: when the turn was begun, by `time.perf_counter`.
        ttft_ms: milliseconds from then to its first token; None where it is not streamed.
        answered: the stages that were answered so far.
        unheld: a stage's KV was not kept, so that nothing can build on it.
        done: the turn is committed; its handles are its version's.
    """

    session: Session
    turn: Turn
    server: Server
    started: float
    ttft_ms: float | None = None
    answered: list[Answered] = field(default_factory=list)
    unheld: bool = False
    done: bool = False
    _released: tuple[str, ...] = ()

    def run_stages(self, send: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        """Carry out all stages but the last one; where the server knows nothing of them, none."""
        for stage in self.turn.plan.stages[:-1]:
            if not self._can_build():
                return
            told = told_in(send(COMPLETIONS, self.stage_body(stage, self.turn.tokens)))
            self.server.connected = told is not None
            if told is None:
                self.unheld = True
                return
            self.add(stage, told)

    def add(self, stage: Stage, told: Told) -> None:
        """Take an answer into account."""
        self.answered.append(Answered(stage, told))
        self.unheld = self.unheld or not told.handle
        self._released = ()

    def give_up(self) -> None:
        """The turn failed: its handles are needed no more, and those released are still to be."""
        if self.done:
            return
        with self.session.lock:
            self.session.release(*self.handles(), *self._released)
        self.answered, self._released = [], ()

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.give_up()

    def handles(self) -> list[str]:
        """Those of the stages that were answered."""
        return [each.told.handle for each in self.answered if each.told.handle]

    def stage_body(self, stage: Stage, tokens: Sequence[int]) -> dict[str, Any]:
        """The request of a stage: the first of the tokens, and a token that nobody reads."""
        return {
            "prompt": list(tokens[: stage.end]),
            "max_tokens": 1,
            "temperature": 0,
            **self._salted(),
            "kv_transfer_params": {KEY: self._ask(stage).model_dump()},
        }

    def last(self) -> Stage:
        """The stage of the turn itself; where a stage before it is missing, it claims less."""
        stages = self.turn.plan.stages
        if len(self.answered) == len(stages) - 1 and not self.unheld:
            return stages[-1]
        return Stage(len(self.turn.tokens), 0, stages[0].reused)

    def last_params(self, *, stream: bool = False) -> dict[str, Any]:
        """What the turn's own request carries besides what the caller wants."""
        nameless = stream and self.server.mute  # its handle would never be known
        ask = self._ask(self.last(), keep=not nameless)
        params = {KEY: ask.model_dump(), "prompt_token_ids": list(self.turn.tokens)}
        return {**self._salted(), "kv_transfer_params": params, "return_token_ids": True}

    def sampled(self) -> None:
        """A token has come."""
        if self.ttft_ms is None:
            self.ttft_ms = (time.perf_counter() - self.started) * 1e3

    def settling_body(self, answer: Mapping[str, Any]) -> dict[str, Any] | None:
        """The request that tells what an answer did not; None where there is nothing to ask.

        vLLM breaks a request off where a stop string shows up, and then answers without the
        connector's word, as its streams do without the plug-in. The same prompt with the reply
        behind it finds what was computed, and is held.
        """
        if self.server.connected is False or told_in(answer) is not None:
            return None
        sampled = sampled_tokens(answer)
        if sampled is None:
            return None
        tokens, last = [*self.turn.tokens, *sampled], self.last()
        return self.stage_body(replace(last, end=len(tokens)), tokens)

    def settled(self, answer: Mapping[str, Any], word: Mapping[str, Any] | None) -> Told | None:
        """What was done for an answer, by what was told behind it; None where nothing was."""
        told = told_in(answer) or (told_in(word) if word else None)
        if told is not None or word is not None:
            self.server.connected = told is not None
        if told is None or told.prompt == len(self.turn.tokens):
            return told
        prompt = len(self.turn.tokens)
        cached = min(cached_tokens(answer), prompt)
        exact = cached if told.spliced_from is None else min(cached, told.spliced_from)
        return told.model_copy(
            update={
                "prompt": prompt,
                "reused_exact": exact,
                "reused_spliced": cached - exact,
                "prefilled": prompt - cached,
            }
        )

    def _can_build(self) -> bool:
        """Whether a stage leads to anything: the base and the stages so far are held."""
        return bool(self.turn.base and self.turn.base.handle) and not self.unheld

    def _salted(self) -> dict[str, Any]:
        return {"cache_salt": self.server.salt} if self.server.salt else {}

    def _ask(self, stage: Stage, *, keep: bool = True) -> Ask:
        base = self.turn.base
        handle = base.handle if base else ""
        claims: list[Claim] = []
        lineage = ""
        if stage.before:
            done = self.answered[-1].told
            claims.append(Claim(source=done.handle, start=0, end=stage.before, at=0))
            lineage = done.handle
        elif base is not None and _reaches(base.spliced_from, stage):
            lineage = handle
        if handle:
            reused = stage.reused
            claims += [Claim(source=handle, start=r.start, end=r.end, at=r.at) for r in reused]
        with self.session.lock:
            if not self._released:
                self._released = self.session.take_released()
            if self.turn.redacts and stage.end == len(self.turn.tokens):
                self._released += self.session.handles()  # given up when this one is admitted
        return Ask(
            session=self.session.id,
            base=lineage,
            claims=tuple(claims),
            keep=keep,
            release=self._released,
        )


def _reaches(spliced_from: int | None, stage: Stage) -> bool:
    """Whether a stage builds on KV that is spliced."""
    return spliced_from is not None and any(run.end > spliced_from for run in stage.reused)


def chat_body(request: Mapping[str, Any], model: str | None) -> dict[str, Any]:
    """The JSON body of a chat completion: what is OpenAI's, with the extra body merged in."""
    body = {key: value for key, value in request.items() if key in _OPENAI and value is not None}
    body.update(request.get("extra_body") or {})
    body.pop("leyline", None)
    return {**body, "model": model} if model else body


def session_header(session: str) -> dict[str, str]:
    """What tells a load balancer, as it tells vLLM, which requests belong together."""
    return {"X-Session-ID": hashlib.blake2b(session.encode(), digest_size=16).hexdigest()}


def told_in(answer: Mapping[str, Any]) -> Told | None:
    """What the connector told in an answer; None where there is no connector.

    Raises:
        AdapterError: it is of another release.
    """
    found = (answer.get("kv_transfer_params") or {}).get(KEY) or answer.get(KEY)
    if found is None:
        return None
    spoken = found.get("protocol", PROTOCOL) if isinstance(found, Mapping) else None
    if spoken != PROTOCOL:
        raise AdapterError(
            f"the server's connector speaks protocol {spoken!r}, this adapter {PROTOCOL}; install "
            "the same release of leyline-agent on both sides"
        )
    try:
        return Told.model_validate(found)
    except ValidationError as error:
        raise AdapterError(f"the server's connector told nothing readable: {error}") from error


def cached_tokens(answer: Mapping[str, Any]) -> int:
    """The tokens of its prompt that vLLM did not compute, as `usage` tells."""
    usage = read(answer.get("usage") or {})
    return (usage.cache_read or 0) if usage else 0


def sampled_tokens(answer: Mapping[str, Any]) -> Sequence[int] | None:
    """The tokens of a reply, the one that ended it included; None where they are not told."""
    choices = answer.get("choices") or []
    found = choices[0].get("token_ids") if len(choices) == 1 else None
    return found if isinstance(found, list) else None
