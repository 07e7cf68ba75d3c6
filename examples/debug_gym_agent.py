"""A debug-gym agent under a policy: named by its path, as in a configuration file.

pip install 'leyline-agent[debug-gym]'; python examples/debug_gym_agent.py
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from debug_gym.agents.base_agent import create_agent
from debug_gym.gym.envs.local import LocalEnv
from debug_gym.gym.terminals.local import LocalTerminal
from debug_gym.gym.tools.tool import ToolCall
from debug_gym.gym.tools.toolbox import Toolbox
from debug_gym.llms.base import LLMConfig, LLMResponse
from debug_gym.llms.openai import OpenAILLM
from debug_gym.logger import DebugGymLogger

FIX = "echo 'def test_two(): assert 1 + 1 == 2' > test_sum.py; yes '12 passed' | head -n 200"


class Scripted(OpenAILLM):
    """Stands in for your LLM: it works in the shell five times, and runs the tests."""

    def tokenize(self, messages: list[dict[str, Any]]) -> list[list[str]]:
        """The words."""
        return [str(message.get("content")).split() for message in messages]

    def generate(self, messages: list[dict[str, Any]], tools: Any, **options: Any) -> LLMResponse:
        """The next reply."""
        place = len(messages) // 2
        size = sum(len(message["content"] or "") for message in messages)
        print(f"call {place}: {len(messages)} messages, {size:,} characters")
        name, arguments = ("bash", {"command": FIX}) if place < 6 else ("eval", {})
        call = ToolCall(f"call-{place}", name, arguments)
        return LLMResponse(messages, "", tool=call, prompt_token_count=size, response_token_count=1)


class Repository(LocalEnv):
    """A folder on this machine."""

    task_name = "sum"


os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
logger = DebugGymLogger("example", level=logging.ERROR)
folder = Path(tempfile.mkdtemp()) / "sum"
folder.mkdir()
(folder / "test_sum.py").write_text("def test_two(): assert 1 + 1 == 3\n")
env = Repository(
    str(folder),
    terminal=LocalTerminal(logger=logger),
    entrypoint="python -m pytest -q .",
    max_score=1,
    logger=logger,
)
for tool in ("bash", "eval"):
    env.add_tool(Toolbox.get_tool(tool))
config = {
    "type": "leyline_adapters.harnesses.debug_gym.LeylineAgent",
    "system_prompt": "You test.",
    "leyline": {"policies": "truncate_older_than:n=2,max_chars=200"},
}
llm = Scripted("scripted", LLMConfig(model="scripted", context_limit=32), logger)
agent = create_agent(config, llm=llm, logger=logger)
trajectory = agent.run(env)
env.close()

record = sum(len(message["content"] or "") for message in agent.build_prompt(env.infos))
(session,) = agent.llm.leyline.sessions
said = "Everything passes." if trajectory["success"] else "It does not pass."
print(f"{said} The record has {record:,} characters; {session.stats().edits} edits.")
