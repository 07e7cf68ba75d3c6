"""Conversations over the real llama.cpp: edits, streams, sampling, and what does not fit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from leyline_adapters.llama_cpp.adapter import LlamaCppAdapter
from leyline_adapters.llama_cpp.binding import LlamaModel
from leyline_adapters.llama_cpp.host import HostConfig, LlamaHost
from leyline_adapters.llama_cpp.tokenizer import LlamaTokenizer
from leyline_agent.adapter import Commit, WireEdit
from leyline_agent.directive import Directive, Mode
from leyline_agent.errors import AdapterError, ContextOverflow, InvalidRequest
from leyline_agent.message import Message
from leyline_agent.receipt import Reason, Receipt
from leyline_agent.serving.chat import ChatService
from leyline_agent.serving.render import ChatRenderer

TASK: list[Message] = [
    {"role": "user", "content": "What is the capital of France? " * 12},
    {"role": "assistant", "content": "Paris, on the Seine. " * 12},
    {"role": "user", "content": "And of Italy? " * 12},
]
STUB: Message = {"role": "user", "content": "[removed]"}
NEXT: Message = {"role": "user", "content": "And of Spain?"}


def request(messages: list[Message] = TASK, **more: Any) -> dict[str, Any]:
    return {"model": "any", "messages": messages, "temperature": 0, "max_tokens": 4, **more}


def commit(base: int, *edits: WireEdit) -> Commit:
    return Commit(session="run", base_version=base, version=base + 1, edits=edits)


def receipt(adapter: LlamaCppAdapter, answer: dict[str, Any]) -> Receipt:
    found = adapter.receipt(answer)
    assert found is not None
    return found


def said(chunks: list[dict[str, Any]]) -> str:
    return "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])


def test_several_edits_of_a_turn(adapter: LlamaCppAdapter) -> None:
    first = adapter.complete(adapter.prepare(request(), commit(0)))
    view = [STUB, TASK[1], STUB, first["choices"][0]["message"], NEXT]
    edits = [WireEdit(messages=(i, i + 1), count=1, mode=Mode.AMORTIZE) for i in (0, 2)]
    told = receipt(adapter, adapter.complete(adapter.prepare(request(view), commit(1, *edits))))
    assert [edit.mode_used for edit in told.edits][:1] == [Mode.AMORTIZE]
    assert told.reused_spliced > 40
    assert told.repair == "boundary"
    assert told.detail == ""
    forgotten = adapter.forget("run", told.edits[0].id)
    assert forgotten.reused_spliced == 0
    applied = adapter.apply("run", 2, [Directive(5, 9, (7,), Mode.AMORTIZE)])
    assert (applied.version, applied.inserted) == (3, 1)


def test_what_went_with_another_branch_is_told(
    adapter: LlamaCppAdapter, service: ChatService
) -> None:
    adapter.complete(adapter.prepare(request(), commit(0)))
    for version in (1, 2):  # each edits version 1, in place
        edit = WireEdit(messages=(0, 1), count=1, mode=Mode.AMORTIZE)
        sent = Commit(session="run", base_version=1, version=version + 1, edits=(edit,))
        view = [{"role": "user", "content": f"[removed {version}]"}, *TASK[1:]]
        answer = adapter.complete(adapter.prepare(request([*view, NEXT]), sent))
    told = receipt(adapter, answer)
    assert told.prompt == told.reused + told.compute
    assert service.engine.num_used < 4096  # type: ignore[attr-defined]


def test_sampling_is_the_seeds(adapter: LlamaCppAdapter) -> None:
    def text(**more: Any) -> str:
        answer = adapter.complete(request(TASK, temperature=1.5, max_tokens=12, **more))
        return str(answer["choices"][0]["message"]["content"])

    text(seed=3)  # from now on only the last token is computed
    assert text(seed=3) == text(seed=3)
    assert len({text(seed=seed) for seed in range(4)}) > 1
    assert text(seed=3, top_k=1) == text(seed=4, top_p=1e-6)


def test_logprobs_and_stops(adapter: LlamaCppAdapter) -> None:
    asked = request(max_tokens=6, logprobs=True, top_logprobs=3)
    [choice] = adapter.complete(asked)["choices"]
    content = choice["logprobs"]["content"]
    assert len(content) == 6
    for entry in content:
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["token"] == entry["token"]  # the likeliest was taken
    text = choice["message"]["content"]
    [cut] = adapter.complete(request(max_tokens=6, stop=text[4:8]))["choices"]
    assert cut["finish_reason"] == "stop"
    assert cut["message"]["content"] == text[: text.index(text[4:8])]


def test_streams_and_cancels(adapter: LlamaCppAdapter, service: ChatService) -> None:
    asked = request(max_tokens=8)
    adapter.complete(asked)  # so that both find the same cached

    async def both() -> tuple[str, str]:
        async with aclosing(adapter.astream(asked)) as chunks:
            streamed = said([chunk async for chunk in chunks])
        whole = (await adapter.acomplete(asked))["choices"][0]["message"]["content"]
        endless = adapter.prepare(request(max_tokens=2000), commit(0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(adapter.acomplete(endless), 0.5)
        return streamed, whole

    streamed, whole = asyncio.run(both())
    assert streamed == whole
    assert adapter.complete(request(max_tokens=2))["usage"]["completion_tokens"] == 2
    session = service.sessions.find("", "run")
    assert session is not None
    assert not session.versions


def test_an_edit_ahead_of_the_turn(adapter: LlamaCppAdapter) -> None:
    first = adapter.complete(adapter.prepare(request(), commit(0)))
    edit = WireEdit(messages=(0, 1), count=1, mode=Mode.FORGET)
    view = [STUB, *TASK[1:], first["choices"][0]["message"]]
    ahead = adapter.edit_ahead(request(view), commit(1, edit))
    told = receipt(adapter, adapter.complete(adapter.prepare(request([*view, NEXT]), commit(2))))
    assert told.compute <= told.prompt - ahead.prompt + 1


def test_a_redaction_leaves_nothing_to_be_shared(
    adapter: LlamaCppAdapter, opened: Callable[[str], LlamaCppAdapter]
) -> None:
    first = adapter.complete(adapter.prepare(request(), commit(0)))
    edit = WireEdit(messages=(0, 1), count=1, mode=Mode.AMORTIZE, redact=True)
    view = [STUB, *TASK[1:], first["choices"][0]["message"], NEXT]
    told = receipt(adapter, adapter.complete(adapter.prepare(request(view), commit(1, edit))))
    assert told.edits[0].mode_used is Mode.FORGET
    assert told.edits[0].retained > 100  # freed, and not overwritten
    again = receipt(adapter, adapter.complete(request()))
    assert again.reused < 50  # the text before the redacted message


def test_what_does_not_fit(adapter: LlamaCppAdapter) -> None:
    with pytest.raises(ContextOverflow, match="do not fit the model's context of 4096"):
        adapter.complete(request([{"role": "user", "content": "one two three " * 2000}]))
    with pytest.raises(AdapterError, match="llama|refuses this request: temperature"):
        adapter.complete(request(temperature=-1))
    adapter.complete(adapter.prepare(request(), commit(0)))
    with pytest.raises(InvalidRequest, match="outside the model's vocabulary of 49152"):
        adapter.apply("run", 1, [Directive(3, 4, (49152,), Mode.AMORTIZE)])


def test_idle_sessions_are_evicted_and_told(model: LlamaModel, tokenizer: LlamaTokenizer) -> None:
    model.lib.llama_memory_clear(model.memory, False)
    host = LlamaHost(model, HostConfig(tapes=2))
    adapter = LlamaCppAdapter(ChatService(host, "small", tokenizer, ChatRenderer(tokenizer)))
    for name in ("one", "two", "three"):
        sent = commit(0).model_copy(update={"session": name})
        view = [{"role": "user", "content": f"{name}: say hello."}]
        adapter.complete(adapter.prepare(request(view, max_tokens=1), sent))
    sent = commit(1).model_copy(update={"session": "one"})
    told = receipt(adapter, adapter.complete(adapter.prepare(request([*view, NEXT]), sent)))
    assert told.reason is Reason.EVICTED
