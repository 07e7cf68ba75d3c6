"""Whatever a harness sends and whichever built-in policies are combined: pairs, pins and rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from leyline_agent import Session
from leyline_agent.policy import Pipeline, Policy, available, parse
from leyline_agent.question import at_once
from leyline_agent.testing import MockAdapter, extract
from leyline_agent.trajectory import Observations

Message = dict[str, Any]

pytestmark = pytest.mark.filterwarnings("ignore::leyline_agent.LeylineWarning")

# Small limits, so that short histories are over them; every built-in policy is here.
SPECS = [
    "keep_all",
    "truncate_older_than:n=1,max_chars=60",
    "keep_last:n=1",
    "keep_last:n=0,polling=2,keep_first=1,exclude_tools=view",
    "clear_tool_uses:trigger=100,keep=1,clear_tool_inputs=true",
    "clear_tool_uses:trigger=100,keep=0,clear_at_least=50,at_least=batch",
    "stale_reads",
    "stale_file",
    "superseded:repeats=view",
    "drop_failed_calls",
    "drop_failed_calls:after=2,polling=2,keep=0",
    "dedupe:min_chars=20",
    "dedupe:keep=last,near=true,min_chars=20",
    "cap_at_ingestion:max_chars=100",
    "pivot_trim:after=1",
    "erratum:fields=x|error",
    "redact:patterns=s3cret|line",
    "redact:patterns=s3cret,everywhere=true",
    "summarise:trigger=100,keep=1,clear_at_least=60,max_tokens=30",
    "summarise:trigger=100,keep=2,clear_at_least=60,max_tokens=30,mode=forget",
    "budget:trigger=150,target=80,clear_at_least=20",
    "budget:trigger=150,target=80,clear_at_least=0,policy=(dedupe:min_chars=20+keep_last:n=1)",
    "pinned:errors=true,tools=view,policy=(keep_last:n=0)",
    "pinned:tags=line,policy=(summarise:trigger=50,keep=1,clear_at_least=30,max_tokens=20+erratum:fields=x)",
    "when:condition=tokens>=100,policy=(keep_last:n=0+redact:patterns=s3cret)",
    "when:condition=turns>2,policy=(stale_reads)",
]
TEXTS = [
    "",
    "short",
    "line of a file\n" * 12,
    "x: 1\nerror: 2",
    "x: 2",
    "the s3cret " * 9,
    "Traceback (most recent call last):\n" + "  at\n" * 20 + "ValueError: no",
    "<returncode>1</returncode>\n<output>\n" + "error: no\n" * 20 + "</output>",
    "Let me try a different approach.",
]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
IDS = st.sampled_from(["a", "b", "c", "d", "e", "", "PIN-1", "PIN-2"])

contents = st.sampled_from(TEXTS) | st.sampled_from(
    [
        None,
        [{"type": "text", "text": TEXTS[2]}, IMAGE],
        [{"type": "hologram", "text": TEXTS[2]}],
        [TEXTS[2], 3],
        {"type": "text"},
        7,
    ]
)


@st.composite
def calls_made(draw: st.DrawFn) -> Message:
    name, arguments = draw(
        st.sampled_from(
            [
                ("bash", '{"command": "cat a.py"}'),
                ("bash", '{"command": "python test.py"}'),
                ("bash", '{"command": "sed -i s/a/b/ a.py"}'),
                ("view", '{"path": "a.py"}'),
                ("bash", "{not json"),
                ("", None),
            ]
        )
    )
    return {"id": draw(IDS), "type": "function", "function": {"name": name, "arguments": arguments}}


@st.composite
def histories(draw: st.DrawFn) -> list[Message]:
    """Turns as they should be, and as they should not: orphans, open calls, odd parts and roles."""
    messages: list[Message] = []
    for _ in range(draw(st.integers(0, 7))):
        kind = draw(st.sampled_from(["turn"] * 6 + ["orphan", "open", "user", "odd"]))
        if kind in ("turn", "open"):
            calls = draw(st.lists(calls_made(), min_size=1, max_size=2))
            messages.append({"role": "assistant", "content": draw(contents), "tool_calls": calls})
            answered = calls if kind == "turn" else calls[1:]
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": draw(contents)}
                for call in answered
            ]
        elif kind == "orphan":
            messages.append({"role": "tool", "tool_call_id": draw(IDS), "content": draw(contents)})
        elif kind == "user":
            messages.append({"role": "user", "content": draw(contents)})
        else:
            messages.append(
                draw(
                    st.sampled_from(
                        [
                            {"role": "critic", "content": "PIN no"},
                            {"role": "assistant", "tool_calls": "none"},
                            {"role": "assistant", "function_call": {"name": "f"}, "content": None},
                            {"role": "function", "name": "f", "content": TEXTS[2]},
                            {"role": "system", "content": "PIN late"},
                        ]
                    )
                )
            )
    return messages


def is_pinned(message: Mapping[str, Any]) -> bool:
    told = (message.get("content"), message.get("tool_call_id"))
    return any(isinstance(text, str) and text.startswith("PIN") for text in told)


def loose(messages: Sequence[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """Results that no call right before them has, and calls that have no result, by their ids."""
    found: Counter[tuple[str, str]] = Counter()
    waiting: list[str] = []
    for message in [*messages, {"role": "end"}]:
        if message["role"] in ("tool", "function"):
            own = str(message.get("tool_call_id") or "")
            if own in waiting:
                waiting.remove(own)
            elif waiting and not own:
                waiting.pop(0)
            else:
                found["result", own] += 1
            continue
        found.update(("call", own) for own in waiting)
        calls = message.get("tool_calls")
        waiting = [str(call["id"]) for call in calls] if isinstance(calls, list) else []
        if not waiting and isinstance(message.get("function_call"), dict):
            waiting = [""]
    return found


def check(incoming: Sequence[Message], view: Sequence[Message]) -> None:
    """Nothing lost its other half, and what is pinned is there as it was."""
    assert not loose(view) - loose(incoming)
    pins = [message for message in incoming if is_pinned(message)]
    assert [message for message in view if is_pinned(message)] == pins


def settle(session: Session, messages: list[Message], reply: str, *, resent: bool) -> list[Message]:
    """The same list again and again, until nothing is edited or asked: then nothing ever is.

    A view that a harness sends again after it was edited once more is edited anew, to the same end.
    """
    seen: list[list[Message]] = [[]]
    for _ in range(12):
        turn = session.begin(messages)
        seen.append(turn.request["messages"])
        check(messages, seen[-1])
        at_rest = not turn.asks and (not turn.edits or (resent and seen[-1] == seen[-2]))
        turn.finish(reply)
        if at_rest:
            break
    again = session.begin(messages)
    assert (again.asks, again.request["messages"]) == ((), seen[-1])
    assert resent or again.edits == ()
    return seen[-1]


HEAD = [{"role": "system", "content": "You fix bugs."}, {"role": "user", "content": "Fix x: 1."}]


@settings(deadline=None, max_examples=120)
@given(
    st.lists(st.sampled_from(SPECS), min_size=1, max_size=4, unique=True),
    st.lists(histories(), min_size=1, max_size=3),
    st.lists(st.sampled_from(["on", "view", "fork", "drop", "rewrite"]), min_size=2, max_size=2),
    st.sampled_from(["tool", "tool", "user"]),
    st.data(),
)
def test_pairs_and_pins_hold_and_the_view_comes_to_rest(
    specs: list[str],
    parts: list[list[Message]],
    actions: list[str],
    observations: Observations,
    data: st.DataObject,
) -> None:
    # Of two that disagree which copy stays each takes the other's: docs/policies.md says so.
    assume(sum("dedupe" in spec for spec in specs) <= 1)
    session = Session(
        parse("+".join(specs)),
        MockAdapter(),
        pinned=is_pinned,
        observations=observations,
        fulfil=at_once(extract),
    )
    messages: list[Message] = [*HEAD]
    for number, part in enumerate(parts):
        messages = [*messages, *part]
        resent = "view" in actions[:number]
        view = settle(session, messages, f"reply {number}", resent=resent)
        messages = [*messages, {"role": "assistant", "content": f"reply {number}"}]
        action = actions[number] if number < len(actions) else "on"
        place = data.draw(st.integers(1, len(messages) - 1))
        if action == "view":
            messages = [*view, messages[-1]]
        elif action == "fork":
            messages = messages[:place]
        elif action == "drop":
            messages = [*messages[:place], *messages[place + 1 :]]
        elif action == "rewrite":
            messages = [*messages[:place], {"role": "user", "content": "x: 3"}, *messages[place:]]
    assert {note.kind for note in session.skipped} <= {"PinnedMessage"}


def test_every_built_in_policy_is_among_them() -> None:
    own = {n for n, point in available().items() if point.value.startswith("leyline_policies.")}
    assert {name for spec in SPECS for name in _names(parse(spec))} == own


def _names(policy: Policy) -> list[str]:
    if isinstance(policy, Pipeline):
        return [name for part in policy.policies for name in _names(part)]
    return [policy.name, *(_names(policy.policy) if hasattr(policy, "policy") else [])]


def test_histories_are_json() -> None:
    """What is drawn could have come over the wire."""

    @settings(max_examples=20)
    @given(histories())
    def holds(messages: list[Message]) -> None:
        assert json.loads(json.dumps(messages)) == messages

    holds()
