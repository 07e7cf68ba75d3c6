"""Answers as the caller gets them: without what only the adapter asked for, with a receipt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline_adapters.vllm.client.account import receipt
from leyline_adapters.vllm.client.asking import Asking, cached_tokens, sampled_tokens, told_in
from leyline_adapters.vllm.client.sessions import Version
from leyline_adapters.vllm.wire import KEY, Told
from leyline_agent.message import Message
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.usage import read
from leyline_agent.wrapping.streams import Assembly

__all__ = ["Streamed", "committed", "finished", "stripped"]

_PLAIN = (
    "the server has no Leyline connector, so every edit is prefilled again; start it with "
    "`leyline serve --engine vllm`"
)
_MUTE = "the server's connector told nothing of this turn"


def finished(
    asking: Asking,
    answer: Mapping[str, Any],
    asked: Mapping[str, Any],
    word: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Commit a turn by its answer, and give the answer to `asked` with the receipt in it.

    `word` is the answer to `Asking.settling_body`.
    """
    made = committed(asking, answer, word)
    shown = _told_of(stripped(answer, asked), made)
    return {**shown, KEY: made.model_dump(mode="json")}


def committed(
    asking: Asking, answer: Mapping[str, Any], word: Mapping[str, Any] | None = None
) -> Receipt:
    """The turn as its session's new version; the receipt of it.

    Raises:
        StaleSession: another commit has the number, made while this one was computed.
    """
    turn, session = asking.turn, asking.session
    told = asking.settled(answer, word) or _untold(asking, answer)
    asking.add(asking.last(), told)
    usage = read(answer.get("usage") or {})
    made = receipt(turn, asking.answered, (usage.completion or 0) if usage else 0)
    made = made.model_copy(update={"ttft_ms": asking.ttft_ms})
    reply = _reply(answer)
    sampled = sampled_tokens(answer)
    computed = sampled if word else (sampled or ())[:-1]  # nothing was computed behind the last
    messages = None if turn.messages is None else [*turn.messages, *([reply] if reply else ())]
    version = Version(
        number=turn.commit.version,
        base=turn.commit.base_version,
        digest=turn.commit.view_digest,
        messages=messages,
        tokens=[*turn.tokens, *(computed or ())],
        handle=told.handle,
        spliced_from=told.spliced_from,
        receipt=made,
        tools=turn.tools,
    )
    asking.done = True
    with session.lock:
        session.release(*(handle for handle in asking.handles() if handle != told.handle))
        if turn.redacts:  # nothing that saw the text is built on again; it was given up already
            session.versions.clear()
            asking.server.forget_texts()
        session.add(version)
        if messages is not None:
            session.replies.retain([m for v in session.versions.values() for m in v.messages or ()])
        if reply is not None and sampled is not None and _says_all(answer, reply):
            ended = answer["choices"][0].get("finish_reason") != "length"
            session.replies.keep(reply, turn.before, sampled[:-1] if ended else sampled)
    return made


def _untold(asking: Asking, answer: Mapping[str, Any]) -> Told:
    """What can be told without a connector: what vLLM's own prefix cache had."""
    prompt = len(asking.turn.tokens)
    cached = min(cached_tokens(answer), prompt)
    mute = asking.server.connected
    return Told(
        prompt=prompt,
        reused_exact=cached,
        prefilled=prompt - cached,
        reason=(Reason.NO_RECEIPT if mute else Reason.ENGINE_CANNOT_SPLICE).value,
        detail=_MUTE if mute else _PLAIN,
    )


def stripped(answer: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """An answer or chunk without the tokens and parameters that the caller did not ask for."""
    shown = {key: value for key, value in answer.items() if key != KEY}
    params = shown.get("kv_transfer_params")
    if isinstance(params, Mapping) and KEY in params:
        rest = {key: value for key, value in params.items() if key != KEY}
        shown["kv_transfer_params"] = rest or None
    if asked.get("return_token_ids"):
        return shown
    shown.pop("prompt_token_ids", None)
    choices = answer.get("choices") or ()
    shown["choices"] = [{k: v for k, v in c.items() if k != "token_ids"} for c in choices]
    return shown


def _told_of(answer: Mapping[str, Any], made: Receipt) -> dict[str, Any]:
    """The answer with the whole turn's cached tokens in `usage`: stages computed some of them."""
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return dict(answer)
    details = {**(usage.get("prompt_tokens_details") or {}), "cached_tokens": made.reused}
    return {**answer, "usage": {**usage, "prompt_tokens_details": details}}


def _reply(answer: Mapping[str, Any]) -> Message | None:
    choices = answer.get("choices") or []
    found = choices[0].get("message") if len(choices) == 1 else None
    return dict(found) if isinstance(found, Mapping) else None


def _says_all(answer: Mapping[str, Any], reply: Mapping[str, Any]) -> bool:
    """Whether a reply says all that was sampled: no reasoning apart, no stop string cut off."""
    if reply.get("reasoning") or reply.get("reasoning_content"):
        return False
    return answer["choices"][0].get("stop_reason") is None


class Streamed:
    """A stream's chunks as the caller gets them; at its end, the turn is committed.

    Args:
        asking: the turn.
        asked: the body the caller wanted to send.
    """

    def __init__(self, asking: Asking, asked: Mapping[str, Any]) -> None:
        self._asking = asking
        self._asked = asked
        self._assembly = Assembly()
        self._tokens: list[int] = []
        self._last: dict[str, Any] = {}
        self._told: Told | None = None
        self._usage: dict[str, Any] | None = None
        self._stop: dict[str, Any] = {}

    def read(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """The chunk to hand on; None for one that is kept for the end."""
        self._told = told_in(chunk) or self._told
        choices = chunk.get("choices") or ()
        for choice in choices:
            self._tokens += choice.get("token_ids") or ()
            if self._tokens:
                self._asking.sampled()
            if choice.get("finish_reason"):
                self._stop = {k: choice.get(k) for k in ("finish_reason", "stop_reason")}
        if chunk.get("usage"):
            self._usage = chunk["usage"]
        shown = stripped(chunk, self._asked)
        if not choices:
            return None
        self._last = {k: v for k, v in shown.items() if k not in ("choices", "usage")}
        self._assembly.add(shown)
        return shown

    def answer(self) -> dict[str, Any]:
        """What the chunks make, as an answer that was not streamed."""
        message = (self._assembly.response() or {"choices": [{}]})["choices"][0].get("message")
        choice = {"message": message, "token_ids": self._tokens, **self._stop}
        told = {KEY: self._told.model_dump()} if self._told else None
        return {"choices": [choice], "usage": self._usage, "kv_transfer_params": told}

    def end(self, word: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The last chunk, with `usage` and the receipt."""
        if self._told is None and self._stop.get("stop_reason") is None:
            self._asking.server.mute = True
        made = committed(self._asking, self.answer(), word)
        last = _told_of({**self._last, "choices": [], "usage": self._usage}, made)
        return {**last, KEY: made.model_dump(mode="json")}
