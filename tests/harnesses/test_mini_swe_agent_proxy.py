"""mini-swe-agent, unchanged, with its base URL on `leyline proxy` in front of `leyline serve`.

Both run in the suite's own environment, which has what they need; this one has not.
"""

import json
import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from mini_swe_runs import LONG, SUBMIT, agent_of, contents, litellm_model, managed, pairs

from leyline_adapters.bundled.http import HttpAdapter

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHON = Path(os.environ.get("LEYLINE_PYTHON") or ROOT / ".venv" / "bin" / "python")
PROXY = "from leyline_agent.cli import main; main()"
POLICY = "truncate_older_than:n=1,max_chars=60,mode=amortize"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON} to run the servers; `make setup` makes it")
    monkeypatch.setenv("MSWEA_COST_TRACKING", "ignore_errors")
    monkeypatch.chdir(tmp_path)


@contextmanager
def printing(*command):
    """A process and the first line it prints."""
    pipe = subprocess.PIPE
    with subprocess.Popen([PYTHON, *command], stdout=pipe, stderr=pipe, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            yield line.strip()
        finally:
            process.terminate()


def said(command):
    """A reply that calls bash, as the model writes it."""
    call = json.dumps({"name": "bash", "arguments": {"command": command}})
    return f"<tool_call>\n{call}\n</tool_call>"


def test_an_episode_through_the_proxy_is_spliced(tmp_path):
    commands = [LONG, "seq 300 500", "ls", LONG, SUBMIT]
    replies = json.dumps([said(command) for command in commands])
    serve = [str(ROOT / "tests" / "helpers" / "scripted_serve.py"), str(tmp_path / "m"), replies]
    with printing(*serve) as upstream:
        options = ["--upstream", upstream, "--policy", POLICY, "--journal", str(tmp_path / "j")]
        with printing("-c", PROXY, "proxy", *options, "--port", "0", "--json") as line:
            report = json.loads(line)
            assert report["adapter"] == "http"
            agent = agent_of(litellm_model(f"{report['url']}/s/mini/v1"))
            result = agent.run("count")
            headers = {"authorization": "Bearer none"}
            sessions = f"{report['url']}/v1/leyline/sessions"
            [told] = httpx.get(sessions, headers=headers).json()["data"]
            shown = httpx.get(f"{sessions}/mini", headers=headers).json()
            receipts = httpx.get(f"{sessions}/mini/receipts", headers=headers).json()["data"]
    assert result == {"exit_status": "Submitted", "submission": "done\n"}
    whole = contents(agent.messages)
    assert [len(content) > 600 for content in whole] == [True, True, False, True]
    assert (told["id"], told["turns"], told["failed"]) == ("mini", 5, 0)
    assert told["edits"] >= 2
    assert told["reused_spliced"] > 0
    assert all(receipt["reason"] == "asked" for receipt in receipts)
    assert sum(receipt["reused_spliced"] > 0 for receipt in receipts) >= 2
    assert pairs([m for m in shown["view"] if m["role"] != "assistant" or m.get("tool_calls")][:-1])
    assert [len(content) <= 60 for content in contents(shown["view"])[:2]] == [True, True]
    assert len(list((tmp_path / "j").rglob("mini.jsonl"))) == 1
    used = [m["extra"]["response"]["usage"] for m in agent.messages if m["role"] == "assistant"]
    assert [usage["prompt_tokens"] for usage in used] == [r["prompt"] for r in receipts]


def test_the_model_around_a_model_reaches_our_server_by_itself(tmp_path):
    """The HTTP adapter makes the calls in the place of litellm's."""
    replies = json.dumps([said(command) for command in [LONG, LONG, LONG, SUBMIT]])
    serve = [str(ROOT / "tests" / "helpers" / "scripted_serve.py"), str(tmp_path / "m"), replies]
    with printing(*serve) as upstream, HttpAdapter(upstream) as adapter:
        policy = POLICY.replace("n=1", "n=2")
        agent = agent_of(model := managed("http://127.0.0.1:9/v1", policy, adapter))
        assert agent.run("count") == {"exit_status": "Submitted", "submission": "done\n"}
    (session,) = model.leyline.sessions
    assert all(receipt.reason == "asked" for receipt in session.receipts)
    assert session.receipts[-1].reused_spliced > 0
    assert all(len(content) > 600 for content in contents(agent.messages))
