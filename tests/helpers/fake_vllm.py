"""A vLLM server with the connector, as far as the wire goes, whose KV can be looked at.

The KV of a token is a digest of what it was computed on: of the KV before it and of itself. So KV
that saw something else than what stands before it now is *not* what a prefill gives, and shows;
and the next token is a digest of the last KV, so that exact KV gives the exact text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from leyline_adapters.vllm.wire import KEY, Ask, Told
from leyline_agent.adapter import CallingAdapter
from leyline_agent.testing.talk import Talk, long_text

BEGIN, END, NEWLINE = 1, 2, 3
CHAT, STAGE = "/v1/chat/completions", "/v1/completions"
CONTEXT = 4000


class Vocabulary:
    """Words as tokens; "ab" reads as one word but may be sampled as "a" and "b"."""

    def __init__(self) -> None:
        self.words = ["<pad>", "<begin>", "<end>", "\n"]

    def encode(self, text: str) -> list[int]:
        found = []
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
            found.append(self.words.index(word))
        return found

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[i] for i in ids if i > NEWLINE)


@dataclass
class Source:
    """What a handle names."""

    owner: tuple[str, str]
    tokens: list[int]
    kv: list[int]


@dataclass
class FakeVllm:
    """The server; `transport` carries an adapter's requests to it.

    Attributes:
        connector: whether it has one.
        plugin: whether streams tell of the KV.
        keeps: how many sources it has room for.
        requests: the bodies sent, oldest first, with their paths.
        affinity: the sessions that the requests' headers name, without those of `/tokenize`.
        sampled_as: replies that are sampled as other tokens than their text reads as.
    """

    connector: bool = True
    plugin: bool = True
    keeps: int = 1000
    protocol: int = 1
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    affinity: list[str | None] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)
    failures: list[httpx.Response | Exception] = field(default_factory=list)
    sampled_as: dict[str, list[str]] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vocabulary = Vocabulary()
        self._cached: dict[str, list[list[int]]] = {}
        self._numbers = 0

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._handle)

    def asks(self) -> list[Ask]:
        """What was asked of the connector so far."""
        params = (body.get("kv_transfer_params") or {} for _, body in self.requests)
        return [Ask.model_validate(found[KEY]) for found in params if KEY in found]

    def forget(self) -> None:
        """Empty the prefix cache."""
        self._cached.clear()

    def spliced_from(self, prompt: list[int], kv: list[int]) -> int | None:
        """The first token whose KV is not what a prefill gives; None where there is none."""
        canonical: list[int] = []
        for at, token in enumerate(prompt):
            canonical.append(_digest(canonical, token))
            if canonical[at] != kv[at]:
                return at
        return None

    def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        body = json.loads(request.content) if request.content else {}
        self.requests.append((path, body))
        if path != "/tokenize":
            self.affinity.append(request.headers.get("X-Session-ID"))
        if self.failures and path != "/tokenize":
            failure = self.failures.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        if path == "/tokenize":
            return httpx.Response(200, json={"tokens": self._render(body)})
        chat = path == "/v1/chat/completions"
        if body.get("model") not in (None, "fake"):
            error = {"message": "The model does not exist. Valid aliases: fake.", "code": 404}
            return httpx.Response(404, json={"error": error})
        params = body.get("kv_transfer_params") or {}
        prompt = params.get("prompt_token_ids") if chat else body["prompt"]
        prompt = prompt or self._render(body)
        if len(prompt) > CONTEXT:
            words = f"Input length ({len(prompt)}) exceeds model's maximum context length."
            error = {"message": words, "type": "BadRequestError", "code": 400}
            return httpx.Response(400, json={"error": error})
        made = self._serve(prompt, body, params.get(KEY))
        return self._streamed(made, body) if body.get("stream") else httpx.Response(200, json=made)

    def _render(self, body: dict[str, Any]) -> list[int]:
        tokens: list[int] = []
        for tool in body.get("tools") or ():
            tokens += [BEGIN, *self.vocabulary.encode("tool " + tool["function"]["name"]), END]
        for message in body["messages"]:
            content = message.get("content") or ""
            text = content if isinstance(content, str) else "".join(p["text"] for p in content)
            for call in message.get("tool_calls") or ():
                text += " call " + call["function"]["name"]
            words = self.vocabulary.encode(message["role"] + " " + text)
            tokens += [BEGIN, *words, END, NEWLINE]
        if body.get("add_generation_prompt", True):
            tokens += [BEGIN, *self.vocabulary.encode("assistant")]
        return tokens

    def _serve(
        self, prompt: list[int], body: dict[str, Any], asked: dict[str, Any] | None
    ) -> dict[str, Any]:
        salt = body.get("cache_salt") or ""
        ask = Ask.model_validate(asked) if asked and self.connector else None
        kv, told = self._reused(prompt, salt, ask)
        reused = len(kv)
        for token in prompt[reused:]:
            kv.append(_digest(kv, token))
        sampled = self._sample(kv, int(body.get("max_tokens") or 6))
        if all(kv[i] == _digest(kv[:i], prompt[i]) for i in range(len(prompt))):
            self._cached.setdefault(salt, []).append(list(prompt))
        answer = self._answer(prompt, sampled, reused)
        if body.get("stop"):  # vLLM breaks such a request off, and nothing is told or held
            answer["choices"][0]["stop_reason"] = body["stop"]
        elif ask is not None:
            spliced = self.spliced_from(prompt, kv)
            exact = min(reused, spliced if spliced is not None else reused)
            handle = self._keep(salt, ask, prompt, kv, sampled)
            found = Told(
                protocol=self.protocol,
                handle=handle,
                prompt=len(prompt),
                reused_exact=exact,
                reused_spliced=reused - exact,
                prefilled=len(prompt) - reused,
                splice_us=5.0 if reused > exact else 0.0,
                reason=told[0],
                detail=told[1],
                spliced_from=spliced,
            )
            answer["kv_transfer_params"] = {KEY: found.model_dump()}
        return answer

    def _reused(
        self, prompt: list[int], salt: str, ask: Ask | None
    ) -> tuple[list[int], tuple[str, str]]:
        """The KV of the prompt's beginning that need not be computed, and the reason."""
        kv: list[int] = []
        told = ("asked", "")
        for claim in ask.claims if ask else ():
            source = self.sources.get(claim.source)
            if source is None or source.owner != (salt, ask.session if ask else ""):
                told = ("unknown_session", f"no source {claim.source}")
                break
            held = len(source.kv)
            if claim.at != len(kv) or claim.end > held:
                told = ("invalid_edit", f"{claim} does not fit {len(kv)} and {held}")
                break
            if (
                source.tokens[claim.start : claim.end]
                != prompt[claim.at :][: claim.end - claim.start]
            ):
                told = ("invalid_edit", f"other tokens than {claim}")
                break
            kv += source.kv[claim.start : claim.end]
        canonical = self._canonical(prompt, salt)
        if len(canonical) > len(kv):
            kv = canonical
        return kv[: len(prompt) - 1], told

    def _canonical(self, prompt: list[int], salt: str) -> list[int]:
        best = 0
        for known in self._cached.get(salt, ()):
            size = 0
            while size < min(len(known), len(prompt)) and known[size] == prompt[size]:
                size += 1
            best = max(best, size)
        kv: list[int] = []
        for token in prompt[:best]:
            kv.append(_digest(kv, token))
        return kv

    def _sample(self, kv: list[int], limit: int) -> list[int]:
        if limit == 1:
            return [END]
        if self.replies:
            text = self.replies.pop(0)
            words = self.sampled_as.get(text, text.split())
            return [*(i for word in words for i in self.vocabulary.encode(word)), END]
        sampled = []
        state = _digest(kv, 0)
        for _ in range(min(limit, 6)):
            sampled += self.vocabulary.encode(f"w{state % 1000}")
            state = _digest([state], 7)
        return sampled

    def _keep(
        self, salt: str, ask: Ask, prompt: list[int], kv: list[int], sampled: list[int]
    ) -> str:
        for handle in ask.release:
            self.sources.pop(handle, None)
        if not ask.keep or self.keeps <= 0:
            return ""
        self._numbers += 1
        handle = f"h{self._numbers}"
        kv = list(kv)
        for token in sampled[:-1]:
            kv.append(_digest(kv, token))
        owner = (salt, ask.session)
        self.sources[handle] = Source(owner, [*prompt, *sampled[:-1]], kv)
        while len(self.sources) > self.keeps:
            del self.sources[next(iter(self.sources))]
        return handle

    def _answer(self, prompt: list[int], sampled: list[int], cached: int) -> dict[str, Any]:
        ended = sampled[-1] == END
        message = {"role": "assistant", "content": self.vocabulary.decode(sampled)}
        choice = {
            "index": 0,
            "message": message,
            "finish_reason": "stop" if ended else "length",
            "stop_reason": None,
            "token_ids": sampled,
        }
        usage = {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(sampled),
            "total_tokens": len(prompt) + len(sampled),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": "fake",
            "choices": [choice],
            "usage": usage,
            "prompt_token_ids": prompt,
            "kv_transfer_params": None,
        }

    def _streamed(self, made: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
        chunks = list(self._chunks(made, body))
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        return httpx.Response(200, text=text + "data: [DONE]\n\n")

    def _chunks(self, made: dict[str, Any], body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        start = {"id": made["id"], "object": "chat.completion.chunk", "model": "fake"}
        (choice,) = made["choices"]
        first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        yield {**start, "choices": [first], "prompt_token_ids": made["prompt_token_ids"]}
        ids = choice["token_ids"]
        for at, token in enumerate(ids):
            word = self.vocabulary.decode([token])
            delta = {"content": (" " if at and word else "") + word}
            last = {"finish_reason": choice["finish_reason"], "stop_reason": None}
            yield {
                **start,
                "choices": [
                    {
                        "index": 0,
                        "delta": delta,
                        "token_ids": [token],
                        **(last if at == len(ids) - 1 else {"finish_reason": None}),
                    }
                ],
            }
        if (body.get("stream_options") or {}).get("include_usage"):
            yield {**start, "choices": [], "usage": made["usage"]}
        params = made["kv_transfer_params"]
        if params and self.plugin:
            yield {**start, "choices": [], KEY: params[KEY]}


def _digest(before: list[int], token: int) -> int:
    return hash((before[-1] if before else 0, len(before), token)) & 0xFFFFFFFF


def talk(adapter: CallingAdapter, **options: Any) -> Talk:
    """A conversation with two long messages behind its task."""
    made = Talk(adapter, {"temperature": 0, "max_tokens": 6, **options})
    made.say("You help.", role="system")
    made.say("Tell what you see.")
    made.say(long_text(80, 1), role="assistant")
    made.say(long_text(80, 2))
    return made


def paths(fake: FakeVllm) -> list[str]:
    """Where requests went, renderings aside."""
    return [path for path, _ in fake.requests if path != "/tokenize"]
