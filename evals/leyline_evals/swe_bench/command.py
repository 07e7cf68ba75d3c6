"""The command `leyline eval swe-bench`: its own options. Those of every run are added to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from leyline_evals.solve.driver import Driver
from leyline_evals.solve.options import seconds_of

__all__ = ["swe_bench"]


def swe_bench(
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            help="shipped, a .jsonl, .json or .parquet file in swebench 5's format, or a name "
            "that swebench knows: verified, full, a hub id.",
        ),
    ] = "shipped",
    split: Annotated[str, typer.Option("--split", help="Of the dataset.")] = "test",
    protocol: Annotated[
        Literal["tools", "text"],
        typer.Option("--protocol", help="Tool calls, or one fenced block a turn: small models."),
    ] = "tools",
    sandbox: Annotated[
        Literal["auto", "docker", "bubblewrap"],
        typer.Option(
            "--sandbox",
            help="Where commands run; auto is Docker where it answers and there is an image.",
        ),
    ] = "auto",
    repos: Annotated[
        Path | None,
        typer.Option("--repos", help="Clones OWNER__NAME, for instances without Docker."),
    ] = None,
    test_time: Annotated[
        str, typer.Option("--test-time", metavar="TIME", help="The tests' wall time.")
    ] = "10m",
    predictions: Annotated[
        str,
        typer.Option(
            "--predictions",
            metavar="gold|empty|FILE",
            help="Grade these into --out, and ask no model.",
        ),
    ] = "",
) -> Driver:
    """SWE-bench instances: mini-swe-agent's loop, swebench's grading.

    Example: `leyline eval swe-bench --predictions gold --out gold`

    Example: `leyline eval swe-bench --model openai/my-model -p keep_last:n=5 --out runs/first`

    Without Docker, commands run in bubblewrap and instances bring their repository: the four that
    are shipped do. `leyline eval setup swe-bench` makes the environment once.
    """
    from leyline_evals.swe_bench.driver import SweBench

    return SweBench(
        dataset=dataset,
        split=split,
        talk=protocol,
        sandbox=sandbox,
        repos=str(repos or ""),
        test_seconds=seconds_of(test_time, "--test-time"),
        predictions=predictions,
    )
