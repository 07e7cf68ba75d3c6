"""What runs in the environment that has mini-swe-agent and swebench, told what to do by its parent.

A program, started as a file by that environment's Python: it imports nothing of Leyline. It reads
one JSON object a line from standard input, `{"op": ..., ...}`, and answers on standard output with
`{"done": ...}` or `{"failed": ..., "kind": ...}`. While an episode runs it asks:

    {"ask": [messages]}             answered {"message": ..., "actions": [{"command": ...}]},
                                    {"message": ..., "refusal": [messages]} or {"stop": why}
    {"did": [outputs], "seconds"}   answered {"messages": [...]}: how the model sees them

Commands run in a box of their own each, by the argv that the parent gives, or in one container.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
# No greetings, no configuration of the user's, no price list from the network.
os.environ["MSWEA_SILENT_STARTUP"] = "1"
os.environ["MSWEA_GLOBAL_CONFIG_DIR"] = sys.prefix
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

from boxes import Box, Container  # type: ignore[import-not-found]  # noqa: E402

RUN = "leyline"
PATCH = "git add -A . && git -c core.quotePath=off diff --cached --no-color {base} -- ."
TESTS = "cat > /tmp/eval.sh; exec bash /tmp/eval.sh < /dev/null"
APPLIED, NOT_APPLIED = ">>>>> Applied Patch", ">>>>> Patch Apply Failed"


class Parent:
    """The other end of the pipe. What else is printed goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def say(self, **told: Any) -> None:
        """Write one line."""
        self._out.write(json.dumps(told, default=str) + "\n")
        self._out.flush()

    def hear(self) -> dict[str, Any]:
        """Read one line; the process ends where the parent has."""
        line = sys.stdin.readline()
        if not line:
            raise SystemExit(0)
        heard: dict[str, Any] = json.loads(line)
        return heard

    def ask(self, **told: Any) -> dict[str, Any]:
        """Write one line and read its answer."""
        self.say(**told)
        return self.hear()


class AskingModel:
    """mini-swe-agent's model: the parent's, behind its session."""

    def __init__(self, parent: Parent) -> None:
        self.config = SimpleNamespace()
        self._parent = parent

    def query(self, messages: list[dict[str, Any]], **kwargs: Any) -> dict[str, Any]:
        """The parent's answer, with the actions that it found in it."""
        from minisweagent.exceptions import FormatError, LimitsExceeded

        answer = self._parent.ask(ask=[_plain(message) for message in messages])
        if "stop" in answer:
            extra = {"exit_status": "LimitsExceeded", "submission": ""}
            raise LimitsExceeded({"role": "exit", "content": answer["stop"], "extra": extra})
        if "refusal" in answer:
            raise FormatError(answer["message"], *answer["refusal"])
        return {**answer["message"], "extra": {"actions": answer["actions"]}}

    def format_message(self, **kwargs: Any) -> dict[str, Any]:
        """The message itself."""
        return kwargs

    def format_observation_messages(
        self, message: dict[str, Any], outputs: list[dict[str, Any]], template_vars: Any = None
    ) -> list[dict[str, Any]]:
        """The outputs of a message's actions, as the parent has the model see them."""
        seconds = sum(output.get("extra", {}).get("seconds", 0.0) for output in outputs)
        messages: list[dict[str, Any]] = self._parent.ask(did=outputs, seconds=seconds)["messages"]
        return messages

    def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
        """None."""
        return {}

    def serialize(self) -> dict[str, Any]:
        """Nothing: the run folder tells of the model."""
        return {}


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in message.items() if key != "extra"}
    code = (message.get("extra") or {}).get("returncode")
    return kept if code is None else {**kept, "extra": {"returncode": code}}


def hello(parent: Parent, told: dict[str, Any]) -> dict[str, Any]:
    """What this environment is, for the box to hold it."""
    folders = sorted({sys.prefix, sys.base_prefix})
    packages = ("mini-swe-agent", "swebench")
    return {"folders": folders, "versions": {name: version(name) for name in packages}}


def load(parent: Parent, told: dict[str, Any]) -> list[dict[str, Any]]:
    """A dataset's rows: parquet, a folder of `datasets`, or a name on the hub."""
    from swebench.cli._datasets import resolve_dataset
    from swebench.harness.utils import load_swebench_dataset

    return [
        dict(row) for row in load_swebench_dataset(resolve_dataset(told["name"]), told["split"])
    ]


def solve(parent: Parent, told: dict[str, Any]) -> dict[str, Any]:
    """One episode of mini-swe-agent's loop, and the patch it leaves."""
    from minisweagent.agents.default import DefaultAgent

    # Seconds, which pass while the model thinks; grading finds it there.
    threading.Thread(target=import_module, args=("swebench.harness.run_evaluation",)).start()

    with _place(told) as place:
        agent = DefaultAgent(
            AskingModel(parent),
            place,
            system_template="{{ told_system }}",
            instance_template="{{ task }}",
            cost_limit=0.0,
            max_consecutive_format_errors=0,  # The parent's limits hold.
        )
        ended = agent.run(told["task"], told_system=told["system"])
        agent.save(Path(told["folder"]) / "trajectory.json")
        patch = ended.get("submission") or ""
        if not patch.strip():
            output = place.run(PATCH.format(base=told["base"]), told["seconds"])
            patch = output["output"] if output["returncode"] == 0 else ""
    return {"exit_status": ended.get("exit_status", ""), "patch": patch}


def grade(parent: Parent, told: dict[str, Any]) -> dict[str, Any]:
    """Apply a prediction to a fresh checkout, run the instance's tests, and have swebench judge."""
    from swebench.harness.run_evaluation import run_instance
    from swebench.harness.utils import make_test_spec

    os.chdir(told["folder"])  # swebench's logs are relative.
    spec, prediction = make_test_spec(told["instance"]), told["prediction"]
    (_logs(prediction) / "report.json").unlink(missing_ok=True)  # It is of another patch.
    if told["box"] is None:
        import docker

        done = run_instance(spec, prediction, docker.from_env(), RUN, int(told["seconds"]))
        report = done[1][spec.instance_id] if done else None
        return {"report": report, "detail": "" if report else _last_line(told, prediction)}
    detail = _tested(spec, prediction, told)
    if detail:
        return {"report": None, "detail": detail}
    _, report = run_instance(spec, prediction, None, RUN, rewrite_reports=True)
    return {"report": report[spec.instance_id], "detail": ""}


def _tested(spec: Any, prediction: dict[str, Any], told: dict[str, Any]) -> str:
    """Write the tests' output where swebench looks for it; why it could not, else nothing."""
    folder = _logs(prediction)
    folder.mkdir(parents=True, exist_ok=True)
    with _place(told) as place:
        patch = prediction["model_patch"] or ""
        said = _apply(place, patch, told["seconds"]) if patch.strip() else APPLIED
        (folder / "run_instance.log").write_text(said)
        if NOT_APPLIED in said:
            return f"the patch does not apply: {said.strip().splitlines()[-1][:200]}"
        (folder / "eval.sh").write_text(spec.eval_script)
        output = place.run(TESTS, told["seconds"], given=spec.eval_script)
    text = output["output"]
    if output["exception_info"]:
        text += f"\n\n{output['exception_info']}"
    (folder / "test_output.txt").write_text(text)
    return f"the tests: {output['exception_info']}" if output["exception_info"] else ""


def _apply(place: Any, patch: str, seconds: float) -> str:
    """What the commands said that swebench applies patches with, one after the other."""
    from swebench.harness.run_evaluation import GIT_APPLY_CMDS

    said = ""
    for command in GIT_APPLY_CMDS:
        script = f"cat > /tmp/patch.diff; {command} /tmp/patch.diff"
        if said:
            script = f"git checkout -- . ; git clean -fd; {script}"
        output = place.run(script, seconds, given=patch)
        said += output["output"]
        if output["returncode"] == 0:
            return f"{APPLIED}:\n{said}"
    return f"{NOT_APPLIED}:\n{said}"


def report(parent: Parent, told: dict[str, Any]) -> dict[str, Any]:
    """Swebench's report of the predictions graded in a folder."""
    from swebench.harness.reporting import make_run_report

    os.chdir(told["folder"])
    path = make_run_report(told["predictions"], told["instances"], RUN, None, ".")
    return {"file": str(path)}


def _place(told: dict[str, Any]) -> Any:
    if told["box"] is None:
        return Container(told["image"], told["step_seconds"])
    return Box(told["box"], told["step_seconds"])


def _logs(prediction: dict[str, Any]) -> Path:
    model = str(prediction["model_name_or_path"]).replace("/", "__")
    return Path("logs/run_evaluation") / RUN / model / str(prediction["instance_id"])


def _last_line(told: dict[str, Any], prediction: dict[str, Any]) -> str:
    log = _logs(prediction) / "run_instance.log"
    lines = log.read_text().strip().splitlines() if log.exists() else []
    return lines[-1][:300] if lines else "swebench gave no report"


OPERATIONS = {f.__name__: f for f in (hello, load, solve, grade, report)}


def main() -> None:
    """Do what is told until there is no more."""
    parent, home = Parent(), Path.cwd()
    while True:
        told = parent.hear()
        began = time.perf_counter()
        try:
            done = OPERATIONS[told["op"]](parent, told)
        except Exception as error:
            traceback.print_exc()
            parent.say(failed=str(error) or repr(error), kind=type(error).__name__)
        else:
            parent.say(done=done, seconds=time.perf_counter() - began)
        os.chdir(home)


if __name__ == "__main__":
    main()
