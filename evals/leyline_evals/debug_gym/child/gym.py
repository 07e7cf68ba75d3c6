"""debug-gym's environment, terminal and tools, as they are but for what does not work as it says.

- An episode ends with `submit`, or when `eval` passes. In debug-gym 1.3.0 the last evaluation says
  so alone, and a `submit` of what fails goes on. (Fixed upstream after it.)
- A command that is not over in time ends with all it started; debug-gym waits for what holds its
  output open.
- What `eval` prints is the same whenever the same happens: without times.
- `pdb` starts when it is used, not at every reset and edit.
- The folder has one name, so that one seed gives one history; output has an end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from debug_gym.gym.entities import EvalOutput, Observation
from debug_gym.gym.envs.local import LocalEnv
from debug_gym.gym.terminals import shell_session
from debug_gym.gym.terminals.local import LocalTerminal
from debug_gym.gym.tools.bash import BashTool
from debug_gym.gym.tools.edit import EditTool
from debug_gym.gym.tools.eval import EvalTool
from debug_gym.gym.tools.grep import GrepTool
from debug_gym.gym.tools.pdb import PDBTool
from debug_gym.gym.tools.submit import SubmitTool
from debug_gym.gym.tools.tool import EnvironmentTool
from debug_gym.gym.tools.view import ViewTool
from debug_gym.gym.utils import cleanup_pytest_output
from debug_gym.logger import DebugGymLogger
from tenacity import stop_after_attempt

from . import shell, tree

__all__ = ["TOOLS", "Quiet", "Repository"]

_TIMES = re.compile(r" in \d+\.\d+s\b")


class Quiet(DebugGymLogger):
    """A logger that says only what is wrong, and counts nobody's progress."""

    def report_progress(self, *args: Any, **named: Any) -> None:
        """Nobody reads the queue it would go to."""


class Terminal(LocalTerminal):
    """A shell in one folder.

    Attributes:
        status: exit status of the last command; None when it was not over in time.
    """

    def __init__(self, folder: str, seconds: float, logger: DebugGymLogger) -> None:
        super().__init__(working_dir=folder, logger=logger)
        self.seconds = seconds
        self.status: int | None = None

    def run(
        self,
        entrypoint: str | list[str],
        timeout: float | None = None,
        raises: bool = False,
        strip_output: bool = True,
    ) -> tuple[bool, str]:
        """Whether commands succeeded, and what they printed."""
        seconds = min(timeout or self.seconds, self.seconds)
        words = self.prepare_command(entrypoint)
        done = shell.run(words, str(self.working_dir), self.env_vars, seconds)
        self.status = done.status
        output = done.output.strip("\r\n") if strip_output else done.output
        if done.status is None:
            told = f"Command timed out after {seconds:g} seconds"
            output = f"{told}\nPartial output:\n{output}" if output else told
        if raises and done.status != 0:
            raise ValueError(f"Failed to run command: {entrypoint}\n{output}")
        return done.status == 0, output


class LazyPdb(PDBTool):
    """pdb, started by the first command after a reset or an edit."""

    def on_env_reset(self, environment: Any, **named: Any) -> None:
        """Forget the session."""
        EnvironmentTool.on_env_reset(self, environment, **named)
        self.stop_pdb()

    def on_edit_success(
        self, environment: Any, file: str, head: int, tail: int, length: int, **named: Any
    ) -> None:
        """Move the breakpoints; the next command starts anew."""
        self.breakpoint_modify(environment, file, head, tail, length)
        self.stop_pdb()


TOOLS = {
    "bash": BashTool,
    "view": ViewTool,
    "grep": GrepTool,
    "edit": EditTool,
    "eval": EvalTool,
    "pdb": LazyPdb,
    "submit": SubmitTool,
}


class Repository(LocalEnv):
    """A repository to mend.

    Args:
        task: what the parent sent: `files`, `readonly`, `instructions`, `evaluate`, `debug`,
            `tools`, `seconds` (of one command), `folder`.
        logger: of debug-gym's.
    """

    def __init__(self, task: Mapping[str, Any], logger: DebugGymLogger) -> None:
        self._task = task
        seconds = task["seconds"]
        shell_session.DEFAULT_TIMEOUT = seconds
        shell_session.ShellSession.start.retry.stop = stop_after_attempt(2)
        super().__init__(
            path=task["folder"],
            terminal=Terminal(task["folder"], seconds, logger),
            entrypoint=task["evaluate"],
            debug_entrypoint=task["debug"],
            max_score=1,
            run_timeout=seconds,
            logger=logger,
        )
        for name in task["tools"]:
            self.add_tool(TOOLS[name]())

    @property
    def task_name(self) -> str:
        """Of the task."""
        return str(self._task["name"])

    @property
    def instructions(self) -> str:
        """What the agent is told."""
        return str(self._task["instructions"])

    def setup_workspace(self) -> None:
        """Write the repository down."""
        folder = Path(self._task["folder"])
        self.workspace.working_dir = folder
        self.terminal.working_dir = str(folder)
        readonly = "\n".join(self._task["readonly"])
        tree.write(folder, {**self._task["files"], ".debugreadonly": f"{readonly}\n"})
        self.workspace.setup_file_filters()

    def setup_terminal(self) -> None:
        """Make it a git repository, for the agent."""
        author = "git config user.name agent && git config user.email '<>'"
        ignored = "printf '%s\\n' __pycache__ .pytest_cache .debugreadonly > .git/info/exclude"
        commands = ("git init -q -b main", author, ignored, "git add -A", "git commit -qm Initial")
        self.terminal.run(" && ".join(commands))

    def eval(self, **named: Any) -> EvalOutput:
        """Run the tests."""
        success, output = self.terminal.run(self.entrypoint, timeout=self.run_timeout)
        self.last_eval = EvalOutput(success, _TIMES.sub("", cleanup_pytest_output(output)))
        return self.last_eval

    def calculate_score(self, eval_output: EvalOutput) -> int:
        """1 when the tests pass."""
        return int(eval_output.success)

    def calculate_terminated(self, eval_output: EvalOutput) -> bool:
        """After `submit`, or tests that pass."""
        return bool(self.terminated or eval_output.success)

    def changes(self) -> tuple[dict[str, str | None], list[str]]:
        """What the agent changed, and what of it is left out."""
        return tree.changes(Path(self._task["folder"]), self._task["files"])

    def said(self, observation: Observation, plain: bool) -> str:
        """An observation as the agent sees it; in plain text a command's has its exit status."""
        text = shell.cut(observation.observation, self._task["chars"])
        if not plain or observation.source != "bash":
            return text
        status = 124 if self.terminal.status is None else self.terminal.status
        return f"<returncode>{status}</returncode>\n<output>\n{text.rstrip()}\n</output>"
