"""The options that every benchmark's command has, and how they are put beside its own."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from leyline_evals.solve.arms import Mechanism
from leyline_evals.solve.driver import Driver
from leyline_evals.solve.errors import EvalError

__all__ = ["RunOptions", "benchmark", "seconds_of"]

MECHANISMS = ",".join(one.value for one in Mechanism)
PANELS = {
    "The run": ("out", "workers", "for_", "retry_errors", "dry_run", "json"),
    "Model": (
        *("model", "base_url", "adapter", "plain", "temperature", "top_p", "kv_gib", "cells"),
        *("price", "recall"),
    ),
    "Arms and what they show": (
        *("policy", "mechanisms", "seeds", "first_seed", "primary", "alpha", "expect", "icc"),
    ),
    "Limits of an episode": (
        *("steps", "episode_time", "step_time", "tokens", "reply_tokens", "repeats"),
    ),
}
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class RunOptions:
    """What a run is made of, as it was typed. Each field is an option."""

    selection: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASKS]...", help="Ids of tasks, * and ? allowed.  [all]"),
    ] = None
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="The run's folder. If it holds this very run, it is gone on with."
        ),
    ] = None
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A litellm name; bundled or bundled/NAME for the engine in this process, "
            "llama_cpp/NAME for llama.cpp there; with --base-url what the server calls it; "
            "scripted for what the benchmark itself says.",
        ),
    ] = None
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="An OpenAI-compatible server.")
    ] = None
    adapter: Annotated[
        str,
        typer.Option("--adapter", help="What speaks to it: openai, or http for a leyline serve."),
    ] = "openai"
    plain: Annotated[
        str | None,
        typer.Option(
            "--plain",
            help="How mechanism plain gets around its prefix cache: cache_salt (vLLM), "
            "cache_prompt (llama.cpp) or tenant (leyline serve).",
        ),
    ] = None
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", "-p", help="name:key=value,... joined by +; any number of them."),
    ] = None
    mechanisms: Annotated[
        str, typer.Option("--mechanisms", help=f"How each is served.  [of {MECHANISMS}]")
    ] = "plain,repair"
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Episodes a task and arm.")] = 4
    first_seed: Annotated[
        int, typer.Option("--first-seed", min=0, help="Of so many, from this one on.")
    ] = 1
    primary: Annotated[
        str | None,
        typer.Option(
            "--primary",
            metavar="A,B",
            help="The arms of the primary comparison, by name or mechanism.  [the first, the last]",
        ),
    ] = None
    alpha: Annotated[float, typer.Option("--alpha", help="The level of its test.")] = 0.05
    expect: Annotated[
        float, typer.Option("--expect", help="The solve rate expected, of a pilot for example.")
    ] = 0.5
    icc: Annotated[
        float, typer.Option("--icc", help="How alike a task's episodes are expected to be, 0-1.")
    ] = 0.3
    workers: Annotated[int, typer.Option("--workers", "-w", min=1, help="Episodes at once.")] = 1
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="End the sitting after so long: 90m, 2h, 45s."),
    ] = None
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Run again what ended in an error.")
    ] = False
    steps: Annotated[int, typer.Option("--steps", min=1, help="Replies an episode.")] = 40
    episode_time: Annotated[
        str, typer.Option("--episode-time", metavar="TIME", help="An episode's wall time.")
    ] = "60m"
    step_time: Annotated[
        str, typer.Option("--step-time", metavar="TIME", help="A tool call's wall time.")
    ] = "60s"
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=1, help="Tokens generated an episode.")
    ] = None
    reply_tokens: Annotated[int, typer.Option("--reply-tokens", min=1, help="Tokens a reply.")] = (
        1024
    )
    repeats: Annotated[
        int, typer.Option("--repeats", min=0, help="Same replies in a row that end it; 0: none.")
    ] = 8
    temperature: Annotated[
        float | None, typer.Option("--temperature", min=0, help="Of every call.")
    ] = 0.7
    top_p: Annotated[float | None, typer.Option("--top-p", help="Of every call.")] = None
    kv_gib: Annotated[
        float, typer.Option("--kv-gib", help="bundled: memory for keys and values, in GiB.")
    ] = 4.0
    cells: Annotated[
        int | None,
        typer.Option("--cells", min=1, help="llama_cpp: tokens held for each worker.  [8192]"),
    ] = None
    price: Annotated[
        str | None,
        typer.Option(
            "--price",
            metavar="P,C,R",
            help="Dollars a million tokens: prompts computed, read from a cache, replies.",
        ),
    ] = None
    recall: Annotated[
        bool, typer.Option("--recall", help="The model may see again what a policy cut.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be run and could be seen, and stop.")
    ] = False
    json: Annotated[
        bool, typer.Option("--json", help="Print the sitting as JSON, and nothing else.")
    ] = False


def benchmark(
    make: Callable[..., Driver], run: Callable[[Driver, RunOptions], None]
) -> Callable[..., None]:
    """A command: `make`'s own options first, then those of every run.

    Args:
        make: makes the driver of its own options; its docstring is the command's help.
        run: what to do with it.
    """
    own = list(inspect.signature(make).parameters.values())
    hints = get_type_hints(make, include_extras=True)
    shared = get_type_hints(RunOptions, include_extras=True)
    names = [one.name for one in fields(RunOptions)]
    if taken := {one.name for one in own} & set(names):
        raise EvalError(f"{make.__name__}: {', '.join(sorted(taken))} are options of every run")

    @functools.wraps(make)
    def command(**given: Any) -> None:
        options = RunOptions(**{name: given.pop(name) for name in names})
        run(make(**given), options)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [one.replace(kind=keyword, annotation=hints[one.name]) for one in own]
    parameters += [
        inspect.Parameter(
            one.name, keyword, default=one.default, annotation=_in_panel(one.name, shared[one.name])
        )
        for one in fields(RunOptions)
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    del command.__wrapped__
    return command


def _in_panel(name: str, option: Any) -> Any:
    """An option's type, shown under its group's title."""
    (info,) = option.__metadata__
    info.rich_help_panel = next((title for title, of in PANELS.items() if name in of), None)
    return option


def seconds_of(text: str, option: str) -> float:
    """Seconds from "90m", "2h", "45s" or "1.5h".

    Raises:
        EvalError: it is no time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or not float(found[1]):
        raise EvalError(f"{option} {text!r}: write a time, such as 90m, 2h or 45s")
    return float(found[1]) * _UNITS[found[2]]
