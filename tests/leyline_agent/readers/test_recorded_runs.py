"""Readers on recorded runs: nothing is lost, every result has its call.

The expectations are computed from the raw files, without the readers' own helpers.
"""

import gzip
import json
from pathlib import Path

import pytest

from leyline_agent.readers import read


def load(path: Path):
    """The JSON values in a file: one, or one a line."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    try:
        return [json.loads(data)]
    except ValueError:
        return [json.loads(line) for line in data.splitlines()]


def plain(content):
    """The text of raw content, whatever its shape."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def shown(recording):
    """Everything the model reads of a run, in one text: contents and call arguments."""
    texts = []
    for message in recording.messages:
        texts.append(plain(message["content"]))
        for call in message.get("tool_calls", ()):
            arguments = json.loads(call["function"]["arguments"] or "{}")
            texts += [
                value if isinstance(value, str) else json.dumps(value)
                for value in arguments.values()
            ]
    return "\n".join(texts)


def assert_paired(recording):
    """Every result answers a call of its own turn, and only a run's last turn has open calls."""
    run = recording.trajectory()
    assert all(result.call is not None for result in run.tool_results)
    assert not any(call.malformed for call in run.tool_calls)
    answered = {result.call for result in run.tool_results}
    last = max((call.index for call in run.tool_calls), default=0)
    assert all(call in answered for call in run.tool_calls if call.index != last)


def single(path):
    (recording,) = read(path)
    assert_paired(recording)
    return recording


def test_sets_are_read_whole(trajectories_dir):
    for path in sorted((trajectories_dir / "trajectories").glob("*.jsonl.gz")):
        raw = load(path)
        recordings = list(read(path))
        assert [r.id for r in recordings] == [record["id"] for record in raw], path.name
        for record, recording in zip(raw, recordings, strict=True):
            assert recording.resolved == record.get("resolved")
            assert_paired(recording)


def test_sets_with_native_calls_keep_every_message(trajectories_dir):
    num_calls = 0
    for path in sorted((trajectories_dir / "trajectories").glob("*.jsonl.gz")):
        for record, recording in zip(load(path), read(path), strict=True):
            if not any(m.get("tool_calls") for m in record["messages"]):
                continue
            assert [plain(m["content"]) for m in recording.messages] == [
                plain(m["content"]) for m in record["messages"]
            ]
            raw_calls = [c for m in record["messages"] for c in m.get("tool_calls", ())]
            calls = recording.trajectory().tool_calls
            assert [(c.id, c.name, c.raw_arguments) for c in calls] == [
                (c["id"], c["function"]["name"], c["function"]["arguments"]) for c in raw_calls
            ]
            num_calls += len(calls)
    assert num_calls > 5000


@pytest.mark.parametrize(
    ("name", "marks"),
    [
        ("swe_smith_ft_xml", ("<function=", "<parameter=", "</parameter>", "</function>")),
        ("swe_agent_demos", ("```", "<command>", "</command>")),
        ("smolagents_gpt_4o_code_gaia_2025", ("Calling tools:",)),
        ("smolagents_gpt_4o_tool_calling_ga", ("Calling tools:",)),
    ],
)
def test_calls_written_as_text_lose_only_their_markup(trajectories_dir, name, marks):
    path = trajectories_dir / "trajectories" / f"{name}.jsonl.gz"
    for record, recording in zip(load(path), read(path), strict=True):
        text = shown(recording)
        for message in record["messages"]:
            if not any(mark in message["content"] for mark in marks):
                assert message["content"] in text
        if not any(m.get("tool_calls") for m in record["messages"]):
            for line in "\n".join(m["content"] for m in record["messages"]).splitlines():
                if not any(mark in line for mark in marks) and not line.startswith("[{'id'"):
                    assert line in text
        assert recording.trajectory().tool_calls


def test_xml_calls_of_swe_smith(trajectories_dir):
    path = trajectories_dir / "trajectories" / "swe_smith_ft_xml.jsonl.gz"
    for record, recording in zip(load(path), read(path), strict=True):
        written = sum(
            m["content"].count("<function=")
            for m in record["messages"][2:]
            if m["role"] == "assistant"
        )
        assert len(recording.trajectory().tool_calls) == written
        assert {c.name for c in recording.trajectory().tool_calls} <= {
            "bash",
            "str_replace_editor",
            "submit",
        }


def test_mini_swe_agent(trajectories_dir):
    path = trajectories_dir / "native" / "mini_swe_agent.traj.json"
    (raw,), run = load(path), single(path)
    spoken = [m for m in raw["messages"] if m["role"] != "exit"]
    assert [m["content"] for m in run.messages] == [m["content"] for m in spoken]
    assert [m["extra"]["exit_code"] for m in run.messages if m["role"] == "tool"] == [
        m["extra"]["returncode"] for m in spoken if m["role"] == "tool"
    ]
    assert len(run.usage) == sum(m["role"] == "assistant" for m in spoken)


def test_exit_codes_are_found_in_the_text_of_mini_swe_agent(trajectories_dir):
    path = trajectories_dir / "trajectories" / "mini_swe_agent_pr_816.jsonl.gz"
    results = [r.message for run in read(path) for r in run.trajectory().tool_results]
    coded = [m for m in results if "extra" in m]
    assert len(coded) > 0.99 * len(results)
    assert all("<returncode>" not in m["content"] for m in results if "extra" not in m)


@pytest.mark.parametrize("name", ["swe_agent_1x.traj.gz", "swe_agent_demo.traj"])
def test_swe_agent(trajectories_dir, name):
    path = trajectories_dir / "native" / name
    (raw,), run = load(path), single(path)
    assert len(run.messages) == len(raw["history"])
    assert len(run.trajectory().tool_calls) == len(raw["trajectory"])
    text = shown(run)
    for message in raw["history"]:
        if message["role"] != "assistant":
            assert plain(message["content"]) in text
        else:
            assert message["thought"] in text
    commands = [c.arguments.get("command") for c in run.trajectory().tool_calls if c.name == "bash"]
    actions = [step["action"].rstrip("\n") for step in raw["trajectory"]]
    assert set(commands) <= set(actions)


def test_openhands_events(trajectories_dir):
    path = trajectories_dir / "native" / "openhands_events.output.jsonl"
    for raw, run in zip(load(path), read(path), strict=True):
        assert_paired(run)
        made = {
            e["tool_call_metadata"]["tool_call_id"]
            for e in raw["history"]
            if "action" in e and "tool_call_metadata" in e
        }
        answers = [e for e in raw["history"] if "observation" in e and "tool_call_metadata" in e]
        assert {c.id for c in run.trajectory().tool_calls} == made
        results = run.trajectory().tool_results
        assert [r.call.id for r in results] == [
            e["tool_call_metadata"]["tool_call_id"] for e in answers
        ]
        for result, event in zip(results, answers, strict=True):
            assert event["content"] in result.content
        errors = [e["content"] for e in raw["history"] if e.get("observation") == "error"]
        flagged = [m["content"] for m in run.messages if m.get("is_error")]
        assert [e.split("\n")[0] for e in errors] == [f.split("\n")[0] for f in flagged]
        assert len(run.usage) == len(raw["metrics"]["token_usages"])


def test_openhands_completion(trajectories_dir):
    path = trajectories_dir / "native" / "openhands_completion.json"
    (raw,), run = load(path), single(path)
    assert [plain(m["content"]) for m in run.messages[:-1]] == [
        plain(m["content"]) for m in raw["messages"]
    ]
    assert run.messages[-1]["content"] == raw["response"]["choices"][0]["message"]["content"]
    assert len(run.tools) == len(raw["kwargs"]["tools"])


def test_debug_gym_shows_what_its_last_prompt_showed(trajectories_dir):
    path = trajectories_dir / "native" / "debug_gym.json"
    (raw,), run = load(path), single(path)
    prompt = raw["log"][-1]["prompt_response_pairs"][0]["prompt"]
    shown_then = [(m["role"], m["content"]) for m in prompt if m["role"] != "assistant"]
    shown_now = [(m["role"], m["content"]) for m in run.messages if m["role"] != "assistant"]
    assert shown_now[: len(shown_then)] == shown_then
    assert [c.id for c in run.trajectory().tool_calls] == [
        s["action"]["id"] for s in raw["log"][1:]
    ]


def test_tau_bench(trajectories_dir):
    path = trajectories_dir / "native" / "tau_bench.json"
    (raw,), runs = load(path), list(read(path))
    assert [len(r.messages) for r in runs] == [len(item["traj"]) for item in raw]
    assert [r.resolved for r in runs] == [item["reward"] == 1.0 for item in raw]
    for run in runs:
        assert_paired(run)


def test_moatless(trajectories_dir):
    path = trajectories_dir / "native" / "moatless.json.gz"
    (raw,), run = load(path), single(path)
    steps = [node for node in raw["nodes"] if node.get("action")]
    names = [s["action"]["action_args_class"].split(".")[-1] for s in steps]
    calls = run.trajectory().tool_calls
    assert len(calls) == len(names)
    text = shown(run)
    assert raw["agent"]["system_prompt"] in text
    assert raw["nodes"][0]["message"] in text
    assert all(step["observation"]["message"] in text for step in steps)


def test_smolagents(trajectories_dir):
    path = trajectories_dir / "native" / "smolagents.jsonl"
    for raw, run in zip(load(path), read(path), strict=True):
        assert_paired(run)
        steps = raw["intermediate_steps"]
        assert len(run.trajectory().tool_calls) == sum(s["role"] == "tool-call" for s in steps)
        text = shown(run)
        assert all(plain(s["content"]) in text for s in steps if s["role"] != "tool-call")
