"""What Anthropic's API refuses, and conversations that it takes."""

import json

import anthropic
import pytest
from anthropic_server import Scripted, serving
from hypothesis import strategies as st

from leyline_agent import Policy
from leyline_agent.testing import DeterministicModel, tool_call

MARK = {"type": "ephemeral"}


def _refusal(body):
    """Why the API would refuse a request's messages; "" when it would not."""
    messages = body["messages"]
    if not messages or messages[0]["role"] != "user":
        return "the first message is not the user's"
    open_calls = []
    marks = len(_marked(body.get("system")))
    for index, message in enumerate(messages):
        content = message["content"]
        if not content:
            return f"message {index} is empty"
        if index and messages[index - 1]["role"] == message["role"]:
            return f"messages {index - 1} and {index} are both of the {message['role']}"
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        kinds = [block["type"] for block in blocks]
        if any(b["type"] == "text" and not b["text"].strip() for b in blocks):
            return f"message {index} has an empty text"
        if any("thinking" in b["type"] and "cache_control" in b for b in blocks):
            return f"message {index} has a breakpoint on thinking"
        results = [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
        if kinds[: len(results)] != ["tool_result"] * len(results):
            return f"message {index} has results behind something else"
        if sorted(results) != sorted(open_calls):
            return f"message {index} answers {results}, not {open_calls}"
        open_calls = [b["id"] for b in blocks if b["type"] == "tool_use"]
        marks += len(_marked(blocks))
    return "too many breakpoints" if marks > 4 else ""


def _marked(blocks):
    """The breakpoints in blocks, those inside results included."""
    if not isinstance(blocks, list):
        return []
    own = [b["cache_control"] for b in blocks if "cache_control" in b]
    return own + [m for b in blocks for m in _marked(b.get("content"))]


@pytest.fixture
def refusal():
    return _refusal


@pytest.fixture
def marks():
    """The breakpoints of a request."""

    def of(body):
        found = _marked(body.get("system"))
        return found + [m for message in body["messages"] for m in _marked(message["content"])]

    return of


WORDS = st.sampled_from(["one", "two lines\nof text", "a {json: like} text", "ünï", "x" * 300])
IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
}
DOCUMENT = {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}
TEXT = st.builds(lambda words: {"type": "text", "text": words}, WORDS)
SAID = st.lists(TEXT | st.sampled_from([IMAGE, DOCUMENT]), min_size=1, max_size=2)
INPUT = st.dictionaries(WORDS, WORDS | st.integers(), max_size=2)
THINKING = st.sampled_from(
    [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "b3BhcXVl"},
    ]
)
RESULT = st.fixed_dictionaries(
    {}, optional={"content": WORDS | st.just("") | SAID, "is_error": st.booleans()}
)


@st.composite
def _conversations(draw):
    """A request body the API takes."""
    messages = [{"role": "user", "content": draw(WORDS | SAID)}]
    number = 0
    for _ in range(draw(st.integers(0, 5))):
        said = draw(st.lists(THINKING, max_size=1)) + draw(st.lists(TEXT, max_size=1))
        inputs = draw(
            st.lists(st.dictionaries(WORDS, WORDS | st.integers(), max_size=2), max_size=3)
        )
        uses = [
            {"type": "tool_use", "id": f"toolu_{number + i}", "name": "bash", "input": given}
            for i, given in enumerate(inputs)
        ]
        number += len(uses)
        if not uses and not any(block["type"] == "text" for block in said):
            said.append({"type": "text", "text": "Well."})
        messages.append({"role": "assistant", "content": [*said, *uses]})
        results = [
            {"type": "tool_result", "tool_use_id": use["id"], **draw(RESULT)} for use in uses
        ]
        beside = draw(SAID if not uses else st.just([]) | SAID)
        messages.append({"role": "user", "content": [*results, *beside]})
    body = {"model": "m", "max_tokens": 9, "messages": messages}
    if draw(st.booleans()):
        body["system"] = draw(WORDS | st.lists(TEXT, min_size=1, max_size=2))
    return _with_marks(json.loads(json.dumps(body)), draw)


def _with_marks(body, draw):
    blocks = [
        block
        for content in (body.get("system"), *(m["content"] for m in body["messages"]))
        if isinstance(content, list)
        for block in content
        if "thinking" not in block["type"]
    ]
    inner = [
        b for block in blocks if isinstance(block.get("content"), list) for b in block["content"]
    ]
    places = st.lists(st.integers(0, len(blocks + inner) - 1), max_size=4, unique=True)
    chosen = draw(places) if blocks else []
    for place in chosen:
        block = (blocks + inner)[place]
        block["cache_control"] = MARK
    return body


@pytest.fixture(scope="session")
def conversations():
    return _conversations()


class StubResults(Policy):
    """Stub every result but those of the last message with calls."""

    def edits(self, trajectory):
        last = max((call.index for call in trajectory.tool_calls), default=0)
        for found in trajectory.tool_results:
            if found.index < last and found.content != "stub":
                yield found.replace("stub")


@pytest.fixture
def stub_results():
    return StubResults()


@pytest.fixture
def scripted():
    """A server's script: its model calls a tool for ever."""
    count = iter(range(10_000))
    model = DeterministicModel(
        lambda messages: tool_call("bash", id=f"c{next(count)}", content="I look.", n=1),
        repeat=True,
    )
    return Scripted(model, _refusal)


@pytest.fixture
def server(scripted):
    with serving(scripted) as url:
        yield url


@pytest.fixture
def client(server):
    with anthropic.Anthropic(api_key="none", base_url=server, max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(server):
    async with anthropic.AsyncAnthropic(api_key="none", base_url=server, max_retries=0) as made:
        yield made
