"""`leyline fidelity`: what splicing changes in a model's predictions, and what it is fit for.

Nothing heavy is imported before it runs.
"""

from __future__ import annotations

import re
from importlib.resources import files as resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from leyline_agent.directive import Mode
from leyline_agent.errors import LeylineError
from leyline_evals.commands import interruptible, serving
from leyline_evals.fidelity.errors import FidelityError
from leyline_evals.fidelity.records import Config, Selection
from leyline_evals.fidelity.registered import Registered, find
from leyline_evals.fidelity.store import beside
from leyline_evals.replay import outputs

if TYPE_CHECKING:
    from leyline_evals.fidelity.runner import Measured

__all__ = ["command", "seconds"]

LIMIT = 36
PAIRS = (("repair", "amortize"), ("repair", "boundary_even"), ("repair", "blend_even"))
_UNITS = {"s": 1, "m": 60, "h": 3600}
# What may be said of a registered test: how long, and where to.
_BESIDE_TEST = {"registered", "during", "json", "html", "resume"}


def command(
    context: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Recorded runs, in any format Leyline reads.  [the demo's]"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="A known name, folder, GGUF file or hub id.  [the embedded]"
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16; as it will be served.")
    ] = "auto",
    arms: Annotated[
        str | None,
        typer.Option(
            help="Ways to carry an edit out, joined by +: names, or repair sets such as "
            "window=16,echo=256.  [all]"
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Edits of recorded runs.")] = LIMIT,
    during: Annotated[
        str | None, typer.Option("--for", help="Begin no edit after this time: 90s, 60m, 2h.")
    ] = None,
    tokens: Annotated[str, typer.Option(help="Shortest and longest prompt.")] = "900-1800",
    seed: Annotated[int, typer.Option(help="Chooses runs, turns and edits.")] = 0,
    generated: Annotated[
        int, typer.Option(min=0, help="Of so many edits one is generated; 0 for none.")
    ] = 3,
    calls: Annotated[
        int, typer.Option(min=0, help="Of so many edits one is asked for its next call; 0: none.")
    ] = 4,
    registered: Annotated[
        str | None,
        typer.Option(help="Run this registered test; it says all the rest."),
    ] = None,
    json: Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="OUT",
            help="Write the report here, for leyline serve --fidelity-report; - is standard "
            "output.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PAGE", help="Write a page with plots here.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the edits a stopped one left at --json.")
    ] = False,
) -> None:
    """Measure what splicing changes in a model's predictions, and which modes it is fit for.

    Example: `leyline fidelity runs.jsonl.gz --model ./my-model --json fidelity.json --for 30m`

    Old results of recorded runs are stubbed, dropped or stubbed in batches, and each arm's
    predictions of the recorded reply are compared with an honest prefill of the same prompt;
    generated edits ask for lines, changed values and secrets. Ctrl-C loses only the edit under
    way; `--resume` goes on. The exit status is 1 when the model is fit for FORGET only.
    """
    kept = None if json in (None, outputs.STDOUT) or not json.name else beside(json)
    outputs.check({"--json": json, "--html": html, "the edits kept for --json,": kept}, files or [])
    if resume and kept is None:
        raise LeylineError("--resume goes on with the file beside --json OUT; name OUT")
    during_s = None if during is None else seconds(during)
    if registered is not None:
        _check_registered(context)
        asked = find(registered)
    else:
        asked = _asked(files, model, arms, limit, tokens, seed, generated, calls)
    with serving():
        from leyline_evals.fidelity.run import finish, run
    with interruptible(kept, "measured edits are"):
        measured: Measured = run(asked, dtype, during_s, kept, resume=resume)
    finish(measured, json, html)
    if measured.report.floor is Mode.FORGET and registered is None:
        raise typer.Exit(1)


def seconds(text: str) -> float:
    """A time such as 90s, 60m or 2h, in seconds.

    Raises:
        FidelityError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if found is None:
        raise FidelityError(f"{text!r} is no time; write 90s, 60m or 2h")
    return float(found[1]) * _UNITS[found[2]]


def _asked(
    files: list[Path] | None,
    model: str | None,
    arms: str | None,
    limit: int,
    tokens: str,
    seed: int,
    generated: int,
    calls: int,
) -> Registered:
    """What the options say, in the form a registration has."""
    from leyline_agent.serving.models.embedded import DEFAULT

    with serving():
        from leyline_evals.fidelity.arms import ARMS, parse_arms
    chosen = tuple(files) if files else (_demo(),)
    named = {arm.name: arm.text for arm in parse_arms(arms.split("+") if arms else list(ARMS))}
    try:
        selection = Selection(seed=seed, tokens=_range(tokens), generated=generated)
    except ValidationError as error:
        raise FidelityError(f"--tokens {tokens}: {error.errors()[0]['msg']}") from error
    config = Config(
        model=model or DEFAULT,
        files=tuple(path.name for path in chosen),
        arms=named,
        selection=selection,
        calls=calls,
    )
    pairs = tuple(pair for pair in PAIRS if set(pair) <= set(named))
    return Registered(config, chosen, limit, pairs)


def _demo() -> Path:
    """The recording that comes with Leyline."""
    return Path(str(resources("leyline_evals.demo").joinpath("recording.json")))


def _range(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)-(\d+)", text.strip())
    if found is None:
        raise FidelityError(f"--tokens {text!r} is no range; write 900-1800")
    return int(found[1]), int(found[2])


def _check_registered(context: typer.Context) -> None:
    """Refuse options that a registered test says itself."""
    for name in context.params:
        given = context.get_parameter_source(name)
        # By its name: newer releases of typer have a click of their own.
        if name not in _BESIDE_TEST and given is not None and given.name == "COMMANDLINE":
            what = "FILES" if name == "files" else f"--{name}"
            raise FidelityError(f"a registered test says {what} itself; leave it out")
