"""What holds for every pipeline of the built-in policies, on any history."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline_agent import Session, edit
from leyline_agent.policy import Pipeline, Policy, as_policy, available, parse
from leyline_agent.readers import read
from leyline_agent.testing import MockAdapter
from leyline_agent.trajectory import Observations, Trajectory
from leyline_policies.budget import Budget
from leyline_policies.cap_at_ingestion import CapAtIngestion
from leyline_policies.clear_tool_uses import ClearToolUses
from leyline_policies.dedupe import Dedupe
from leyline_policies.drop_failed_calls import DropFailedCalls
from leyline_policies.erratum import Erratum
from leyline_policies.keep_all import KeepAll
from leyline_policies.keep_last import KeepLast
from leyline_policies.pinned import Pinned
from leyline_policies.pivot_trim import PivotTrim
from leyline_policies.redact import Redact
from leyline_policies.stale_file import StaleFile
from leyline_policies.stale_reads import StaleReads
from leyline_policies.summarise import Summarise
from leyline_policies.superseded import Superseded
from leyline_policies.truncate_older_than import TruncateOlderThan
from leyline_policies.when import When

BUILT_IN = {
    "keep_all": KeepAll,
    "truncate_older_than": TruncateOlderThan,
    "keep_last": KeepLast,
    "drop_failed_calls": DropFailedCalls,
    "stale_reads": StaleReads,
    "stale_file": StaleFile,
    "superseded": Superseded,
    "dedupe": Dedupe,
    "cap_at_ingestion": CapAtIngestion,
    "clear_tool_uses": ClearToolUses,
    "budget": Budget,
    "erratum": Erratum,
    "pivot_trim": PivotTrim,
    "redact": Redact,
    "summarise": Summarise,
}


def own_policies() -> set[str]:
    """The names of the policies that come with Leyline."""
    return {n for n, point in available().items() if point.value.startswith("leyline_policies.")}


COMMANDS = [
    "cat a.py",
    "sed -n '1,9p' a.py",
    "sed -i s/a/b/ a.py",
    "cat a.py b.py",
    "python test.py",
    "python test.py | tail -5",
    "cd sub && rm a.py",
    "grep -n x a.py",
]
OUTPUTS = [
    "",
    "short",
    "line\n" * 100,
    "Traceback (most recent call last):\n" + "  x\n" * 90 + "ValueError: no",
    "<returncode>1</returncode>\n<output>\n" + "error: no\n" * 60 + "</output>",
    "<returncode>0</returncode>\n<output>\n" + "x\n" * 400 + "</output>",
    "Error:\nparameter `path` is required " + "y" * 300,
]

WORDS = st.sampled_from(["hm", "hm", "hm", "Let me try a different approach."])

policies = st.lists(
    st.one_of(
        st.just(KeepAll()),
        st.builds(TruncateOlderThan, n=st.integers(1, 4), max_chars=st.integers(40, 400)),
        st.builds(
            KeepLast,
            n=st.integers(0, 4),
            polling=st.integers(1, 3),
            keep_first=st.integers(0, 2),
            clear_at_least=st.sampled_from([0, 50, 500]),
            exclude_tools=st.sampled_from([(), ("bash",), ("view",)]),
            placeholder=st.sampled_from(["gone", "[Earlier output removed: old tool output]"]),
        ),
        st.builds(
            DropFailedCalls,
            after=st.integers(1, 4),
            keep=st.integers(0, 2),
            polling=st.integers(1, 3),
        ),
        st.just(StaleReads()),
        st.just(StaleFile()),
        st.builds(PivotTrim, reach=st.integers(1, 5), after=st.integers(1, 3)),
        st.builds(Superseded, repeats=st.sampled_from([(), ("view",)])),
        st.builds(Dedupe, keep=st.sampled_from(["first", "last"]), near=st.booleans()),
        st.builds(
            ClearToolUses,
            trigger=st.sampled_from([0, 400, 900]),
            keep=st.integers(0, 3),
            clear_at_least=st.sampled_from([0, 100, 500]),
            at_least=st.sampled_from(["all_or_nothing", "batch"]),
            clear_tool_inputs=st.booleans(),
        ),
        st.builds(
            Budget,
            trigger=st.sampled_from([500, 900]),
            target=st.sampled_from([100, 400]),
            clear_at_least=st.sampled_from([0, 200]),
        ),
        st.builds(
            Pinned,
            policy=st.sampled_from(["keep_last:n=1", "stale_reads+drop_failed_calls"]),
            errors=st.booleans(),
            tools=st.sampled_from([(), ("view",)]),
        ),
        st.builds(
            When,
            condition=st.sampled_from(["tokens>=500", "turns>3"]),
            policy=st.sampled_from(["keep_last:n=2,polling=2", "dedupe+superseded"]),
        ),
    ),
    min_size=1,
    max_size=4,
    unique_by=type,
).map(as_policy)


def pair(one: Policy, other: Policy) -> Policy:
    """A pipeline of two; a cap stands last, as the document says, where it gives way."""
    return as_policy(sorted([one, other], key=lambda part: isinstance(part, CapAtIngestion)))


more_policies = st.one_of(
    policies,
    st.builds(CapAtIngestion, max_chars=st.sampled_from([100, 250])),
    st.just(Erratum(fields=("x", "ValueError", "short"))),
)
any_policies = st.builds(pair, more_policies, more_policies)
quick = settings(deadline=None, max_examples=50)


@st.composite
def turns(draw: st.DrawFn, first: int = 0) -> list[dict[str, Any]]:
    """Assistant turns of one or more parallel calls, each with its result, and small talk."""
    messages: list[dict[str, Any]] = []
    for number in range(first, first + draw(st.integers(1, 8))):
        calls, results = [], []
        for position in range(draw(st.sampled_from([1, 1, 1, 2]))):
            name, arguments = draw(
                st.tuples(st.just("bash"), st.sampled_from(COMMANDS)).map(
                    lambda pair: (pair[0], {"command": pair[1]})
                )
                | st.just(("view", {"path": "a.py"}))
                | st.just(("edit", {"path": "a.py", "new_code": "x"}))
            )
            call_id = f"call-{number}-{position}"
            function = {"name": name, "arguments": json.dumps(arguments)}
            calls.append({"id": call_id, "type": "function", "function": function})
            content: Any = draw(st.sampled_from(OUTPUTS))
            if draw(st.integers(0, 9)) == 0:
                content = [{"type": "text", "text": content}]
            results.append({"role": "tool", "tool_call_id": call_id, "content": content})
        messages.append({"role": "assistant", "content": draw(WORDS), "tool_calls": calls})
        messages += results
        if draw(st.integers(0, 5)) == 0:
            messages.append({"role": "user", "content": "Go on."})
    return messages


HEAD = [{"role": "system", "content": "s" * 900}, {"role": "user", "content": "task " * 200}]


def texts(trajectory: Trajectory) -> list[int]:
    return [len(result.content) for result in trajectory.tool_results]


@quick
@given(turns(), policies)
def test_any_pipeline_yields_legal_edits_that_shorten(
    messages: list[dict[str, Any]], policy: Policy
) -> None:
    trajectory = Trajectory(messages=[*HEAD, *messages])
    edits = policy.propose(trajectory)
    edit.check(edits, trajectory.messages)
    view = trajectory.edited(edits)
    assert [m["role"] for m in view.messages] == [m["role"] for m in trajectory.messages]
    assert [r.call and r.call.id for r in view.tool_results] == [
        r.call and r.call.id for r in trajectory.tool_results
    ]
    edited = {e.start for e in edits}
    for before, after in zip(trajectory.tool_results, view.tool_results, strict=True):
        if before.index in edited:
            assert len(after.content) < len(before.content)
        else:
            assert after.message is before.message


@quick
@given(turns(), policies)
def test_nothing_new_means_no_edits(messages: list[dict[str, Any]], policy: Policy) -> None:
    trajectory = Trajectory(messages=[*HEAD, *messages])
    assert policy.propose(trajectory) == policy.propose(trajectory)
    view = trajectory.edited(policy.propose(trajectory))
    assert policy.propose(view) == []


@quick
@given(turns(), turns(first=100), policies)
def test_a_result_is_edited_at_most_once_as_the_run_grows(
    messages: list[dict[str, Any]], more: list[dict[str, Any]], policy: Policy
) -> None:
    view = Trajectory(messages=HEAD)
    edited: set[int] = set()
    for message in [*messages, *more]:
        view = view.extended([message])
        if message["role"] == "assistant":
            continue
        edits = policy.propose(view)
        assert edited.isdisjoint(e.start for e in edits)
        edited |= {e.start for e in edits}
        view = view.edited(edits)


@quick
@given(turns(), policies)
def test_a_view_that_lost_its_history_is_stable_too(
    messages: list[dict[str, Any]], policy: Policy
) -> None:
    trajectory = Trajectory(messages=[*HEAD, *messages])
    seen = trajectory
    for _ in range(6):
        seen = Trajectory(messages=trajectory.edited(policy.propose(trajectory)).messages)
        if texts(seen) == texts(trajectory):
            break
        trajectory = seen
    assert policy.propose(seen) == []


@settings(deadline=None, max_examples=60)
@given(turns(), any_policies, st.sets(st.sampled_from([f"call-{n}-0" for n in range(8)])))
def test_in_a_session_pairs_and_pins_hold_and_the_view_is_stable(
    messages: list[dict[str, Any]], policy: Policy, pins: set[str]
) -> None:
    session = Session(policy, MockAdapter(), pinned=lambda m: m.get("tool_call_id") in pins)
    run = [*HEAD, *messages]
    for place in [i for i, m in enumerate(run) if m["role"] == "assistant"]:
        views = []
        for _ in range(2):
            turn = session.begin(run[:place])
            views.append(turn.request["messages"])
            turn.finish({"choices": [{"message": run[place]}]})
        assert views[0] == views[1]
        assert_paired(run[:place], views[0])
        pinned = [m for m in run[:place] if m.get("tool_call_id") in pins]
        assert [m for m in views[0] if m.get("tool_call_id") in pins] == pinned
    assert {note.kind for note in session.skipped} <= {"PinnedMessage"}


def assert_paired(history: list[dict[str, Any]], view: list[dict[str, Any]]) -> None:
    """Every result stands behind its call, and no call lost its result."""
    seen, given = Trajectory(messages=view), Trajectory(messages=history)
    assert all(result.call is not None for result in seen.tool_results)
    assert [r.message["tool_call_id"] for r in seen.tool_results] == [
        r.message["tool_call_id"] for r in given.tool_results
    ]
    assert [call.id for call in seen.tool_calls] == [call.id for call in given.tool_calls]


RECORDED = [
    "mini_swe_agent_pr_816",
    "openhands_llm_completions",
    "swe_agent_demos",
    "tau2_claude_sonnet_4_5_airline_default_gpt4_1",
]
SPECS = [
    "truncate_older_than",
    "keep_last:n=5,polling=3",
    "stale_reads",
    "stale_file",
    "superseded",
    "dedupe:near=true,min_chars=60",
    "drop_failed_calls:after=5,keep=2,polling=2",
    "cap_at_ingestion:max_chars=2000",
    "clear_tool_uses:trigger=4000,clear_at_least=500,clear_tool_inputs=true",
    "budget:trigger=6000,target=3000,clear_at_least=500",
    "pinned:errors=true,policy=(keep_last:n=3)",
    "when:condition=tokens>=3000,policy=(keep_last:n=3,polling=3)",
    "erratum:fields=Current working directory|Open file",
    r"redact:patterns=(https?://[\w./-]+)",
]


@pytest.mark.parametrize("spec", SPECS)
def test_recorded_runs(trajectories_dir: Path, spec: str) -> None:
    edits = 0
    for name in RECORDED:
        (run,) = read(trajectories_dir / "trajectories" / f"{name}.jsonl.gz", limit=1)
        whole = run.trajectory()
        messages = list(whole.messages)[:120]
        session = Session(spec, MockAdapter(), observations=whole.observations)
        for place in [i for i, m in enumerate(messages) if m["role"] == "assistant" and i]:
            turn = session.begin(messages[:place])
            view = Trajectory(messages=turn.request["messages"], observations=whole.observations)
            assert all(result.call is not None for result in view.tool_results)
            turn.finish({"choices": [{"message": messages[place]}]})
        assert session.skipped == ()
        edits += len(session.edits)
    assert edits > 0


def test_a_turn_costs_what_is_new_in_it() -> None:
    """500 messages, 100,000 tokens: at most 5 ms in the best of the last turns."""
    policy = (
        "dedupe+stale_file+superseded+drop_failed_calls:after=20+keep_last:n=50,polling=10"
        "+cap_at_ingestion"
    )
    run: list[dict[str, Any]] = list(HEAD)
    for number in range(249):
        function = {"name": "bash", "arguments": json.dumps({"command": f"cat f{number % 97}.py"})}
        call = {"id": f"c{number}", "type": "function", "function": function}
        text = f"line {number} of a file\n" * 90
        run.append({"role": "assistant", "content": "hm", "tool_calls": [call]})
        run.append({"role": "tool", "tool_call_id": f"c{number}", "content": text})
    assert Trajectory(messages=run).tokens() > 100_000
    for _ in range(4):  # A busy machine is slower now and then.
        best, scratch = turn_by_turn(policy, run), from_scratch(policy, run)
        if best < min(0.005, scratch / 3):
            return
    pytest.fail(f"a turn took {best * 1e3:.1f} ms, and {scratch * 1e3:.1f} from scratch")


def turn_by_turn(policy: str, run: list[dict[str, Any]]) -> float:
    """Seconds that the quickest of the last turns takes."""
    session, spent = Session(policy, MockAdapter()), []
    for place in range(2, 500, 2):
        started = time.process_time()
        turn = session.begin(run[:place])
        spent.append(time.process_time() - started)
        turn.finish({"choices": [{"message": run[place]}]})
    assert len(session.edits) > 100
    return min(spent[-20:])


def from_scratch(policy: str, run: list[dict[str, Any]]) -> float:
    """Seconds that the last turn takes a new session."""
    afresh = [dict(message) for message in run[:498]]
    started = time.process_time()
    Session(policy, MockAdapter()).begin(afresh)
    return time.process_time() - started


@pytest.mark.parametrize("observations", ["tool", "user"])
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_policy_runs_on_degenerate_views(name: str, observations: Observations) -> None:
    policy = parse(name)
    for messages in (
        [],
        [{"role": "user", "content": "hi"}],
        [{"role": "tool", "content": "orphan " * 99}],
        [{"role": "assistant", "content": None}, {"role": "user", "content": None}],
        [{"role": "assistant", "tool_calls": [{"id": None, "function": None}]}, {"role": "tool"}],
    ):
        trajectory = Trajectory(messages=messages, observations=observations)
        edit.check(policy.propose(trajectory), trajectory.messages)


def test_every_built_in_policy_is_found_by_its_name() -> None:
    assert {name: available()[name].load() for name in BUILT_IN} == BUILT_IN
    for name, kind in BUILT_IN.items():
        assert parse(name) == kind()
        assert parse(name).name == name


@pytest.mark.parametrize("name", sorted(own_policies()))
def test_every_built_in_policy_tells_its_rule_its_source_and_its_effect(name: str) -> None:
    told = " ".join((available()[name].load().__doc__ or "").split())
    rule, _, rest = told.partition("Source: ")
    assert len(rule) > 20
    assert re.search(r"recorded .*runs", rest)
    assert re.search(r"\b(?:million|thousand)\b", rest)


def test_a_pipeline_of_everything_parses() -> None:
    made = parse("stale_reads + drop_failed_calls:after=2 + truncate_older_than:n=3,max_chars=99")
    assert isinstance(made, Pipeline)
    assert made.name == "stale_reads+drop_failed_calls+truncate_older_than"
