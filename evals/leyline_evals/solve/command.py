"""What the commands of `leyline eval` do, once their arguments are known."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import typer
from pydantic import BaseModel, Field, ValidationError
from rich.console import Console

from leyline_agent._version import __version__
from leyline_evals.solve import drivers, policy_files, words
from leyline_evals.solve.arms import SolveArm, arms_of, find, parse_mechanisms
from leyline_evals.solve.backend import SCRIPTED, ModelConfig, Price, check, connect
from leyline_evals.solve.config import DriverConfig, Registration, RunConfig, TaskConfig
from leyline_evals.solve.driver import Driver, Limits
from leyline_evals.solve.errors import EvalError
from leyline_evals.solve.folder import RunFolder, Sitting, now
from leyline_evals.solve.options import RunOptions, seconds_of
from leyline_evals.solve.progress import Bar
from leyline_evals.solve.runner import Sat, Sitter, tasks_of

__all__ = ["EvalSitting", "config_of", "resume", "run", "sit"]


class EvalSitting(BaseModel):
    """What a sitting did: `leyline eval NAME --json`, `leyline eval resume --json`."""

    format: Literal["leyline-eval-sitting"] = "leyline-eval-sitting"
    version: Literal[1] = 1
    run: str
    sha256: str
    episodes: int
    done: int
    errors: int
    left: int
    detectable: float | None = None
    notes: list[str] = Field(default_factory=list)


@runtime_checkable
class Grading(Protocol):
    """A driver that can grade predictions without a model.

    Attributes:
        predictions: what is to be graded instead of a run; "" for nothing.
    """

    predictions: str

    def grade(self, selection: Sequence[str], out: Path | None, workers: int, json: bool) -> int:
        """Grade them and tell, with `json` as JSON; the exit status."""
        ...


@runtime_checkable
class Finishing(Protocol):
    """A driver that puts something together at the end of each sitting."""

    def finish(self, run: RunFolder) -> None:
        """The sitting is over; `run.rows()` are the finished episodes."""
        ...


def run(driver: Driver, options: RunOptions) -> None:
    """Run a benchmark, or go on with it where `--out` holds this very run."""
    if isinstance(driver, Grading) and driver.predictions:
        chosen = options.selection or ()
        raise typer.Exit(driver.grade(chosen, options.out, options.workers, options.json))
    console = Console(stderr=options.json, highlight=False, soft_wrap=True, markup=False)
    seconds = None if options.for_ is None else seconds_of(options.for_, "--for")
    config = config_of(driver, options)
    for line in words.plan(config):
        console.print(line)
    if options.dry_run:
        return
    driver.versions()  # Raises where it cannot run: nothing is registered then.
    folder = _folder(config, options)
    if config.registration is not None:
        console.print(f"Registered as sha256 {folder.file.sha256}.")
    sat = sit(folder, driver, options.workers, seconds, retry_errors=options.retry_errors)
    _tell(folder, sat, console, options.json)


def resume(path: Path, workers: int, seconds: float | None, retry_errors: bool, json: bool) -> None:
    """Go on with a run."""
    console = Console(stderr=json, highlight=False, soft_wrap=True, markup=False)
    folder = _opened(path)
    driver = drivers.again(folder.config.driver.name, folder.config.driver.options)
    _tell(folder, sit(folder, driver, workers, seconds, retry_errors=retry_errors), console, json)


def sit(
    folder: RunFolder,
    driver: Driver,
    workers: int,
    seconds: float | None = None,
    *,
    retry_errors: bool = False,
) -> Sat:
    """One sitting over a run.

    Raises:
        EvalError: another process is at it, a task has changed, or a mechanism cannot be had.
        EngineError: the model cannot be loaded.
    """
    config, began = folder.config, time.monotonic()
    with folder.locked(), Bar(config.size, len(folder.rows())) as bar:
        bar.say("loading")
        tasks = tasks_of(driver, folder)
        with connect(config.model, workers) as backend:
            number = len(folder.sittings()) + 1
            versions = {"leyline": __version__, **driver.versions(), **backend.versions()}
            folder.sit(
                Sitting(
                    number=number,
                    started=now(),
                    workers=workers,
                    versions=versions,
                    machine=_machine(),
                )
            )
            if seconds is not None:
                seconds -= time.monotonic() - began  # Loading is a part of the sitting.
            sitter = Sitter(folder, driver, tasks, backend, number, seconds, retry_errors, bar)
            sat = sitter.run(workers)
        if isinstance(driver, Finishing):
            driver.finish(folder)
    return sat


def config_of(driver: Driver, options: RunOptions) -> RunConfig:
    """The run that options make.

    Raises:
        EvalError: an option is missing or does not fit.
        PolicyError: there is no such policy.
    """
    if options.model is None:
        raise EvalError(
            "--model is missing: a litellm name, bundled, or scripted for what the benchmark says"
        )
    arms = arms_of(options.policy or (), parse_mechanisms(options.mechanisms))
    tasks = driver.tasks(options.selection or ())
    last = options.first_seed + options.seeds
    try:
        model = _model(options)
        check(model, [arm.mechanism for arm in arms])
        if model.name == SCRIPTED and model.base_url is None:
            for task in tasks:
                driver.script(task, options.first_seed)
        return RunConfig(
            driver=DriverConfig(name=driver.name, options=driver.options),
            tasks=tuple(TaskConfig.of(task) for task in tasks),
            arms=arms,
            seeds=tuple(range(options.first_seed, last)),
            model=model,
            limits=_limits(options),
            registration=_registration(arms, len(tasks), options),
            policy_files=policy_files.files_of(arm.policy for arm in arms),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise EvalError(f"no run can be made of these options: {place}: {first['msg']}") from error


def _model(options: RunOptions) -> ModelConfig:
    return ModelConfig(
        name=options.model or "",
        base_url=options.base_url,
        adapter=options.adapter,
        plain=options.plain,
        temperature=options.temperature,
        top_p=options.top_p,
        kv_gib=options.kv_gib,
        cells=options.cells,
        price=None if options.price is None else _price(options.price),
        recall=options.recall,
    )


def _price(text: str) -> Price:
    try:
        prompt, cached, reply = (float(part) for part in text.split(","))
        return Price(prompt=prompt, cached=cached, reply=reply)
    except ValueError as error:
        raise EvalError(f"--price {text!r}: write three prices, such as 3,0.3,15") from error


def _limits(options: RunOptions) -> Limits:
    return Limits(
        steps=options.steps,
        seconds=seconds_of(options.episode_time, "--episode-time"),
        step_seconds=seconds_of(options.step_time, "--step-time"),
        tokens=options.tokens,
        reply_tokens=options.reply_tokens,
        repeats=options.repeats,
    )


def _registration(arms: Sequence[SolveArm], tasks: int, options: RunOptions) -> Registration | None:
    if len(arms) < 2:
        return None
    names = [arms[0].name, arms[-1].name]
    if options.primary is not None:
        names = [find(text.strip(), arms).name for text in _halves(options.primary)]
        if names[0] == names[1]:
            raise EvalError(f"--primary {options.primary!r}: two different arms")
    asked = Registration(
        first=names[0],
        second=names[1],
        alpha=options.alpha,
        rate=options.expect,
        icc=options.icc,
    )
    from leyline_evals.solve.power import told

    return told(asked, tasks, options.seeds)


def _halves(text: str) -> list[str]:
    """Two arms' names. Commas stand in names too: they are apart at the one behind a mechanism."""
    from leyline_agent.options import split

    parts = split(text, ",")
    for cut in range(1, len(parts)):
        left, right = ",".join(parts[:cut]), ",".join(parts[cut:])
        if "=" not in right.partition("@")[0].partition(":")[0]:
            return [left, right]
    raise EvalError(f"--primary {text!r}: write two arms, such as keep_all,repair")


def _folder(config: RunConfig, options: RunOptions) -> RunFolder:
    """The run's folder: made, or the same run's."""
    path = options.out
    if path is None:
        raise EvalError("--out is missing: the folder of the run, which is gone on with later")
    if not RunFolder.is_run(path):
        return RunFolder.create(path, config)
    folder = _opened(path)
    if folder.config != config:
        raise EvalError(
            f"{path} holds a run with other options ({_changed(folder.config, config)}); go on "
            f"with it by `leyline eval resume {path}`, or name another folder with --out"
        )
    return folder


def _opened(path: Path) -> RunFolder:
    """A run that is gone on with, by the policies it was planned with."""
    folder = RunFolder.open(path)
    policy_files.check(folder.config.policy_files, path)
    return folder


def _changed(old: RunConfig, new: RunConfig) -> str:
    names = (name for name in type(old).model_fields if getattr(old, name) != getattr(new, name))
    return ", ".join(names)


def _machine() -> dict[str, str]:
    found: dict[str, Any] = {"cores": os.cpu_count() or 1, "system": platform.platform()}
    found["python"] = platform.python_version()
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.1f}"
    return {key: str(value) for key, value in found.items()}


def _tell(folder: RunFolder, sat: Sat, console: Console, json: bool) -> None:
    """Say how far it is, and what to do next; exit 1 where an episode or a policy of it failed."""
    registered = folder.config.registration
    told = EvalSitting(
        run=str(folder.path),
        sha256=folder.file.sha256,
        episodes=folder.config.size,
        done=sat.done,
        errors=sat.errors,
        left=sat.left,
        detectable=registered.detectable if registered else None,
        notes=list(words.failures(sat.failed)),
    )
    if json:
        print(told.model_dump_json(indent=2), flush=True)
    for line in words.sat(folder.path, folder.config.size, sat):
        console.print(line)
    if sat.errors or sat.failed:
        raise typer.Exit(1)
