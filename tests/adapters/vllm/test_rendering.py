"""Rendering by the server: remembered, and replies put back as what was sampled."""

from __future__ import annotations

from typing import Any

import pytest
from fake_vllm import BEGIN, END, NEWLINE, FakeVllm

from leyline_adapters.vllm.client.rendering import Replies, ServerRenderer, SessionRenderer
from leyline_agent.errors import AdapterError
from leyline_agent.message import Message


def says(*texts: str) -> list[Message]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.fixture
def fake() -> FakeVllm:
    return FakeVllm()


@pytest.fixture
def server(fake: FakeVllm) -> ServerRenderer:
    def post(body: dict[str, Any]) -> dict[str, Any]:
        fake.requests.append(("/tokenize", body))
        return {"tokens": fake._render(body)}

    return ServerRenderer(post)


def test_the_same_is_asked_for_once(fake: FakeVllm, server: ServerRenderer) -> None:
    one = server.render(says("hello there"))
    assert server.render(says("hello there")) == one
    assert len(fake.requests) == 1
    assert server.render(says("hello there"), template={"chat_template_kwargs": {"a": 1}})
    assert len(fake.requests) == 2


def test_what_stands_around_a_reply(server: ServerRenderer, fake: FakeVllm) -> None:
    frame = server.frame()
    assert frame.tail == (END, NEWLINE)
    assert frame.head == (BEGIN, *fake.vocabulary.encode("assistant"))


def test_a_reply_is_put_back_as_it_was_sampled(server: ServerRenderer, fake: FakeVllm) -> None:
    replies = Replies()
    renderer = SessionRenderer(server, replies)
    view = says("q one", "ab cd", "q two")
    before = renderer.plain(view[:1])
    sampled = fake.vocabulary.encode("a b cd")
    replies.keep(view[1], before, sampled)
    plain = renderer.plain(view)
    assert renderer.render(view) == [
        *before,
        *sampled,
        *plain[len(before) + 2 :],
    ]
    shorter = renderer.render(says("q", "ab cd", "q two"))  # learnt once, found anywhere
    assert shorter[-len(plain) + 3 :].count(sampled[0]) == 1


def test_a_reply_that_reads_as_it_was_sampled_costs_nothing(
    server: ServerRenderer, fake: FakeVllm
) -> None:
    replies = Replies()
    renderer = SessionRenderer(server, replies)
    view = says("q", "one two", "r")
    replies.keep(view[1], renderer.plain(view[:1]), fake.vocabulary.encode("one two"))
    assert renderer.render(view) == list(renderer.plain(view))


def test_the_same_words_elsewhere_are_left_alone(server: ServerRenderer, fake: FakeVllm) -> None:
    replies = Replies()
    renderer = SessionRenderer(server, replies)
    view = says("say ab", "ab", "ab")
    replies.keep(view[1], renderer.plain(view[:1]), fake.vocabulary.encode("a b"))
    found = renderer.render(view)
    (whole,) = fake.vocabulary.encode("ab")
    assert found.count(whole) == 2


def test_replies_that_are_gone_are_forgotten() -> None:
    replies = Replies()
    view = says("q", "one", "r", "two")
    for reply in (view[1], view[3]):
        replies.keep(reply, (1,), [5])
    replies.retain(view[:2])
    assert len(replies.known) == 1


def test_the_effort_reaches_the_template_as_the_chat_endpoint_hands_it_on(
    server: ServerRenderer,
) -> None:
    asked = {"reasoning_effort": "low", "chat_template_kwargs": {"x": 1}}
    template = SessionRenderer.of(server, Replies(), asked).template
    assert template["chat_template_kwargs"] == {
        "reasoning_effort": "low",
        "enable_thinking": True,
        "x": 1,
    }


@pytest.mark.parametrize("answer", [{}, {"tokens": "no"}, {"tokens": []}, {"tokens": [1, "2"]}])
def test_an_answer_without_tokens(answer: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match="is this vLLM"):
        ServerRenderer(lambda body: answer).render(says("q"))
