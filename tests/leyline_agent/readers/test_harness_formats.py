"""What the readers of harness logs make of their samples, message by message."""

import json

import pytest


def test_mini_swe_agent(recording, shorts):
    run = recording("mini-swe-agent")
    assert shorts(run)[2:] == [
        ("assistant", "I look.", [("c1", "bash", {"command": "ls"})]),
        (
            "tool",
            "<returncode>1</returncode>\n<output>\nno\n</output>",
            {"tool_call_id": "c1", "extra": {"exit_code": 1}},
        ),
    ]
    assert run.usage == ({"prompt_tokens": 9, "completion_tokens": 2},)
    assert (run.id, run.meta["exit_status"], run.meta["model"]) == (
        "repo__repo-1",
        "Submitted",
        "deepseek",
    )


def test_mini_swe_agent_1x_writes_its_command_in_a_fence(recording, shorts):
    assert shorts(recording("mini-swe-agent.1x"))[2:] == [
        ("assistant", "THOUGHT: I look.\n\n", [("call_1", "bash", {"command": "ls -l\ncat a"})]),
        (
            "tool",
            "<returncode>0</returncode>\n<output>\na.py\n</output>",
            {"tool_call_id": "call_1", "extra": {"exit_code": 0}},
        ),
        ("assistant", "Two:\n```bash\nls\n```\n```bash\npwd\n```"),
        ("user", "Please give exactly one action."),
        ("assistant", "That's it.", [("call_2", "bash", {"command": "pwd"})]),
    ]


def test_mini_swe_agent_exit_code_behind_an_exception(recording, sample):
    record = sample("mini-swe-agent")
    record["messages"][3] = {
        "role": "tool",
        "tool_call_id": "c1",
        "content": "<exception>timed out</exception>\n<returncode>-1</returncode>\n<output>\n",
    }
    assert recording(record).messages[3]["extra"] == {"exit_code": -1}


def test_swe_agent(recording, shorts):
    run = recording("swe-agent")
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "Fix it."),
        ("assistant", "I look.", [("c1", "bash", {"command": "ls"})]),
        ("tool", "OBSERVATION:\na.py", {"tool_call_id": "c1"}),
    ]
    assert run.meta["exit_status"] == "submitted"


def test_swe_agent_0x_records_thought_and_action(recording, shorts):
    assert shorts(recording("swe-agent.0x"))[2:] == [
        ("assistant", "I look.\n", [("call_1", "bash", {"command": "ls -F"})]),
        ("tool", "a.py\n(Open file: n/a)\nbash-$", {"tool_call_id": "call_1"}),
        ("assistant", "View.", [("call_2", "edit", {"path": "a.py"})]),
        ("tool", "ok", {"tool_call_id": "call_2"}),
        ("assistant", "I give up."),
    ]


def test_openhands_events(recording, shorts):
    run = recording("openhands-events")
    hint = (
        "Use make.\n\nThe following information has been included based on a keyword match for "
        '"git".\nUse git.'
    )
    shown = (
        "a.py\n[done]\n[Current working directory: /w]\n[Python interpreter: /py]\n"
        "[Command finished with exit code 0]"
    )
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "Fix it."),
        ("user", hint),
        (
            "assistant",
            "I look.",
            [("c1", "execute_bash", {"command": "ls"}), ("c2", "think", {"thought": "x"})],
        ),
        ("tool", shown, {"tool_call_id": "c1", "extra": {"exit_code": 0}}),
        ("tool", "Logged.", {"tool_call_id": "c2"}),
        ("user", "Hurry."),
        ("user", "Bad call.\n[Error occurred in processing last action]", {"is_error": True}),
    ]
    assert (run.id, run.resolved, run.meta) == ("repo__repo-1", False, {"model": "claude"})
    assert (len(run.tools), len(run.usage)) == (1, 1)


def test_openhands_events_without_recorded_calls(recording, shorts):
    assert shorts(recording("openhands-events.old")) == [
        ("user", "Fix it."),
        ("assistant", "I look.", [("call_1", "execute_bash", {"command": "ls"})]),
        ("tool", "a.py", {"tool_call_id": "call_1", "extra": {"exit_code": 2}}),
        ("assistant", "Done.", [("call_2", "finish", {"outputs": {}})]),
    ]


def test_openhands_commands_of_the_user(recording, shorts):
    event = {"source": "user", "action": "run", "args": {"command": "ls"}}
    answer = {"source": "user", "observation": "run", "content": "a.py", "extras": {}}
    assert shorts(recording({"history": [event, answer]})) == [
        ("user", "User executed the command:\nls"),
        ("user", "\nObserved result of command executed by user:\na.py"),
    ]


def test_debug_gym(recording, shorts):
    run = recording("debug-gym")
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "Fix it."),
        ("assistant", None, [("c1", "eval", {})]),
        ("tool", "1 failed", {"tool_call_id": "c1"}),
        ("assistant", "I see.", [("c2", "rewrite", {"start": 1})]),
        ("tool", "rewritten", {"tool_call_id": "c2"}),
    ]
    assert (run.id, run.resolved) == ("pandas_dataframe", True)
    assert run.usage == ({"prompt_tokens": 9, "completion_tokens": 2},)


def test_debug_gym_without_prompts_starts_with_the_first_observation(recording, sample, shorts):
    record = sample("debug-gym")
    for step in record["log"]:
        step.pop("prompt_response_pairs")
    assert shorts(recording(record))[0] == ("user", "Fix it.")


def test_tau_bench(recording, shorts):
    run = recording("tau-bench")
    assert shorts(run)[2:4] == [
        ("assistant", None, [("c1", "book", {"id": 1})]),
        ("tool", "booked", {"name": "book", "tool_call_id": "c1"}),
    ]
    assert (run.id, run.resolved) == ("task3-trial1", True)


def test_tau2_bench_shows_what_the_agent_read(recording, shorts):
    run = recording("tau2-bench")
    assert shorts(run) == [
        ("system", "Policy."),
        ("assistant", "Hi!"),
        ("user", "Book."),
        ("assistant", None, [("c1", "book", {"id": 1})]),
        ("tool", "no seats", {"tool_call_id": "c1", "is_error": True}),
        ("user", "Bye."),
    ]
    assert (run.id, run.resolved, run.meta["model"]) == ("sim-1", False, "gpt")


def test_tau2_bench_calls_without_ids(recording, sample, shorts):
    (simulation,) = sample("tau2-bench")["simulations"]
    simulation["messages"][2]["tool_calls"][0]["id"] = simulation["messages"][3]["id"] = ""
    assert shorts(recording(simulation))[2:4] == [
        ("assistant", None, [("call_1", "book", {"id": 1})]),
        ("tool", "no seats", {"tool_call_id": "call_1", "is_error": True}),
    ]


def test_tau2_bench_results_in_a_bundle(recording, sample, shorts):
    (simulation,) = sample("tau2-bench")["simulations"]
    bundle = {"role": "tool", "tool_messages": [simulation["messages"][3]]}
    simulation["messages"][3] = bundle
    run = recording(simulation)
    assert shorts(run)[3] == ("tool", "no seats", {"tool_call_id": "c1", "is_error": True})


def test_moatless_shows_the_last_prompt_and_what_followed(recording, shorts):
    run = recording("moatless")
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "Fix it."),
        ("assistant", "Look.", [("t1", "FindClass", {"class_name": "A"})]),
        ("tool", "<observation>\nclass A\n</observation>", {"tool_call_id": "t1"}),
        ("assistant", None, [("t2", "Finish", {"finish_reason": "done"})]),
        ("tool", "<observation>\nFinished\n</observation>", {"tool_call_id": "t2"}),
    ]
    assert [usage["prompt_tokens"] for usage in run.usage] == [5, 8]


def test_moatless_without_recorded_model_calls(recording, sample, shorts):
    record = sample("moatless")
    for node in record["nodes"]:
        node["completions"] = {}
    assert shorts(recording(record))[:4] == [
        ("system", "You help."),
        ("user", "Fix it."),
        ("assistant", "Look.", [("call_1", "FindClass", {"class_name": "A"})]),
        ("tool", "<observation>\nclass A\n</observation>", {"tool_call_id": "call_1"}),
    ]


def test_moatless_takes_one_path_through_its_tree(recording, sample):
    record = sample("moatless")
    abandoned = {**record["nodes"][2], "observation": {"message": "abandoned"}}
    record["nodes"] = [*record["nodes"][:2], abandoned, {**record["nodes"][2], "node_id": 3}]
    assert "abandoned" not in json.dumps(recording(record).messages)


def test_moatless_with_a_circle_of_parents_ends(recording, sample):
    record = sample("moatless")
    record["nodes"][0]["parent_id"] = 2
    assert recording(record).messages


def test_smolagents(recording, shorts):
    run = recording("smolagents")
    assert shorts(run) == [
        ("system", "You help."),
        ("user", "New task:\nWhat?"),
        ("assistant", "No code</code>"),
        ("user", "Error:\nError in code parsing:\nNo.", {"is_error": True}),
        ("assistant", "Thought: run", [("call_9", "python_interpreter", {"code": "print(3+4)"})]),
        ("tool", "Observation:\n7", {"tool_call_id": "call_9"}),
        ("assistant", None, [("call_10", "final_answer", {"answer": 7})]),
        ("tool", "Call id: call_10\nError:\nNo.", {"tool_call_id": "call_10", "is_error": True}),
    ]


@pytest.mark.parametrize(
    "literal",
    [
        "[__import__('os').system('true')]",
        "[{'function': open}]",
        "((((",
        "[]",
        "{'a': 1}",
        "[" * 5000,
    ],
)
def test_smolagents_never_runs_what_it_reads(recording, sample, literal, short):
    record = sample("smolagents")
    record["intermediate_steps"][5]["content"] = f"Calling tools:\n{literal}"
    assert short(recording(record).messages[5]) == ("assistant", f"Calling tools:\n{literal}")


def test_smolagents_python_values_that_json_lacks(recording, sample):
    record = sample("smolagents")
    call = "{'function': {'name': 'f', 'arguments': {1: (2, b'x'), 'y': {3}}}}"
    record["intermediate_steps"][5]["content"] = f"Calling tools:\n[{call}]"
    (parsed,) = recording(record).messages[4]["tool_calls"]
    assert json.loads(parsed["function"]["arguments"]) == {"1": [2, "b'x'"], "y": [3]}
