"""debug-gym's agent, whose prompts are answered by the parent process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from debug_gym.agents.base_agent import AgentArgs, BaseAgent
from debug_gym.gym.entities import Observation
from debug_gym.gym.envs.env import EnvInfo
from debug_gym.gym.tools.tool import EnvironmentTool, ToolCall
from debug_gym.llms.base import LLM, LLMConfig, LLMResponse
from debug_gym.logger import DebugGymLogger

from . import shell
from .gym import Repository
from .wire import Wire

__all__ = ["Agent", "Parent", "Stopped"]

NOT_RUN = "Not run: one tool call a turn."


class Stopped(Exception):
    """The parent wants no further step."""


class Parent(LLM):
    """The model, which is the parent's business: prompts go there, replies and calls come back.

    Attributes:
        did: what came of the last reply, for the parent: how many seconds it took.
    """

    def __init__(self, wire: Wire, logger: DebugGymLogger) -> None:
        super().__init__("parent", LLMConfig(model="parent", context_limit=1_000_000), logger)
        self._wire = wire
        self.did: dict[str, Any] | None = None

    def __call__(
        self, messages: list[dict[str, Any]], tools: Sequence[EnvironmentTool], **named: Any
    ) -> LLMResponse:
        """The reply. Nothing is trimmed here: that is what policies are for."""
        return self.generate(messages, tools)

    def generate(
        self, messages: list[dict[str, Any]], tools: Sequence[EnvironmentTool], **named: Any
    ) -> LLMResponse:
        """The reply, with the call that the parent found in it, or what is wrong with it."""
        declared = self.define_tools(list(tools))
        self._wire.write({"ask": {"messages": messages, "tools": declared, "did": self.did}})
        answer = self._wire.read()
        if "reply" not in answer:
            raise Stopped
        call = answer.get("call")
        response = LLMResponse(
            prompt=[],
            response=answer["reply"].get("content"),
            tool=ToolCall(**call) if call else None,
        )
        response.reply = answer["reply"]
        response.problem = answer.get("problem")
        return response

    def define_tools(self, tool_call_list: list[EnvironmentTool]) -> list[dict[str, Any]]:
        """Tools in chat form; an argument that may be null may be left out."""
        return [_declared(tool) for tool in tool_call_list]

    def tokenize(self, messages: list[dict[str, Any]]) -> list[list[str]]:
        """Nobody counts tokens here."""
        return [[] for _ in messages]

    def parse_tool_call_response(self, response: Any) -> ToolCall:
        """Not asked: the parent reads replies."""
        raise NotImplementedError

    def convert_response_to_message(self, response: LLMResponse) -> dict[str, Any]:
        """The reply as it came."""
        reply: dict[str, Any] = response.reply
        return reply

    def convert_observation_to_message(
        self, observation: str, action_tool_call_id: Any = None, action_tool_call_name: Any = None
    ) -> dict[str, Any]:
        """The result of a call, or what the user says."""
        if action_tool_call_id is None:
            return {"role": "user", "content": observation}
        return {"role": "tool", "tool_call_id": action_tool_call_id, "content": observation}


class Agent(BaseAgent):
    """The loop of debug-gym's base agent.

    Args:
        task: what the parent sent: `system`, `last`, `plain`, and what `Repository` needs.
        parent: answers.
        logger: of debug-gym's.
    """

    name = "leyline"

    def __init__(self, task: Mapping[str, Any], parent: Parent, logger: DebugGymLogger) -> None:
        super().__init__(AgentArgs(max_steps=1 << 30), parent, logger)
        self._task = task
        self._first: list[dict[str, Any]] = []

    def build_system_prompt(self, info: EnvInfo | None = None) -> dict[str, Any]:
        """What the parent says it is; no template."""
        return {"role": "system", "content": self._task["system"]}

    def build_instance_prompt(self, info: EnvInfo | None = None) -> dict[str, Any]:
        """The task, what `eval` printed at the beginning, and `last`: the same at every step."""
        if not self._first:
            assert info is not None
            parts = [str(info.instructions)]
            if info.eval_observation is not None:
                told = shell.cut(info.eval_observation.observation, self._task["chars"])
                parts.append(f"This is what the tests print now:\n\n{told}")
            parts.append(self._task["last"])
            content = "\n\n".join(filter(None, parts))
            self._first = [{"role": "user", "content": content}]
        return self._first[0]

    def build_history_prompt(self) -> list[dict[str, Any]]:
        """Replies as they came, each with what answers its calls."""
        messages = []
        for response, info in zip(
            self.history.llm_responses, self.history.env_observations, strict=True
        ):
            messages.append(self.llm.convert_response_to_message(response))
            ids = [call.get("id") for call in response.reply.get("tool_calls") or ()]
            said = [info.step_observation.observation, *[NOT_RUN] * (len(ids) - 1)]
            for number, text in enumerate(said):
                call = ids[number] if ids else None
                messages.append(self.llm.convert_observation_to_message(text, call))
        return messages

    def execute_action(self, llm_response: LLMResponse) -> EnvInfo:
        """Carry out the call, or tell what was wrong with the reply; and how long it took."""
        env: Repository = self.env
        started = time.perf_counter()
        env.terminal.status = None
        if llm_response.problem is None:
            info = env.step(llm_response.tool, llm_response.response)
        else:
            info = replace(env.infos, step_observation=Observation("env", llm_response.problem))
        text = env.said(info.step_observation, self._task["plain"])
        info = replace(info, step_observation=Observation(info.step_observation.source, text))
        self.llm.did = {"seconds": time.perf_counter() - started}
        self.history.step(info, llm_response)
        return info


def _declared(tool: EnvironmentTool) -> dict[str, Any]:
    needed = [name for name, about in tool.arguments.items() if "null" not in about["type"]]
    parameters = {"type": "object", "properties": tool.arguments, "required": needed}
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}
