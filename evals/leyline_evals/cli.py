"""The sub-commands `leyline replay` and `leyline demo`.

Nothing heavy is imported before one of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from leyline_agent.errors import LeylineError, PolicyError
from leyline_agent.policy import available, parse
from leyline_evals.commands import interruptible, serving
from leyline_evals.replay import outputs
from leyline_evals.replay.arms import ALL_ARMS, Arm, parse_arms
from leyline_evals.replay.records import Config
from leyline_evals.replay.workload import Workload

__all__ = ["demo", "replay"]

FINISHED = "finished runs are"
ALL = ",".join(arm.value for arm in ALL_ARMS)

Files = Annotated[
    list[Path] | None,
    typer.Argument(help="Recorded runs, in any format Leyline reads, gzipped or not."),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy",
        "-p",
        help="What edits them: name:key=value,... joined by +; your own is file.py:Name. "
        "Several, or @FILE with one a line, are compared in a table.",
    ),
]
Arms = Annotated[str | None, typer.Option("--arms", help=f"The ways to serve each run.  [{ALL}]")]
Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="OUT",
        help="Write the figures here, for machines; - is standard output, which then has nothing "
        "else.",
    ),
]
Html = Annotated[
    Path | None, typer.Option("--html", metavar="PAGE", help="Write a page with plots here.")
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most this many runs, over all files.")
]
MaxTurns = Annotated[
    int | None, typer.Option("--max-turns", min=1, help="At most this many turns of each run.")
]
TokensOnly = Annotated[
    bool,
    typer.Option("--tokens-only", help="Count, at any length; no model runs, nothing is timed."),
]
Fidelity = Annotated[
    bool,
    typer.Option("--fidelity", help="Compare predictions with an honest re-prefill as well."),
]
FidelityTurns = Annotated[
    int, typer.Option("--fidelity-turns", min=1, help="At so many edited turns of each run.")
]
Fulfil = Annotated[
    str,
    typer.Option(
        "--fulfil",
        help="Who answers policies that ask a model: extract (no model: the beginnings of what "
        "is asked about) or litellm.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", help="A known name, folder, GGUF file or hub id.  [the embedded]"),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with what a killed replay left beside --json.")
]
Jobs = Annotated[
    int | None,
    typer.Option("--jobs", min=1, help="Processes, with --tokens-only.  [one a core]"),
]

Made = Annotated[
    str | None,
    typer.Option(
        "--workload",
        help="Instead of files: message_edit:sessions=16,turns=6,system=4000,turn=2000, "
        "conversations of which one message is rewritten every turn.",
    ),
]
Adapter = Annotated[
    str | None,
    typer.Option(
        "--adapter",
        metavar="NAME[=URL]",
        help="The engine: bundled, http=URL, vllm=URL, llama_cpp, openai=URL, ...; all "
        "conversations share it.  [bundled]",
    ),
]
Concurrency = Annotated[
    str | None,
    typer.Option(
        "--concurrency",
        metavar="N,...",
        help="Play all conversations at once, with at most N calls under way.  [1]",
    ),
]
ReplyTokens = Annotated[
    int,
    typer.Option(
        "--reply-tokens", min=1, help="Tokens generated a call, with the three options above."
    ),
]


def replay(
    files: Files = None,
    policy: Policies = None,
    arms: Arms = None,
    json: Json = None,
    html: Html = None,
    limit: Limit = None,
    max_turns: MaxTurns = None,
    tokens_only: TokensOnly = False,
    fidelity: Fidelity = False,
    fidelity_turns: FidelityTurns = 4,
    fulfil: Fulfil = "",
    model: Model = None,
    resume: Resume = False,
    jobs: Jobs = None,
    workload: Made = None,
    adapter: Adapter = None,
    concurrency: Concurrency = None,
    reply_tokens: ReplyTokens = 1,
) -> None:
    """Re-run recorded trajectories turn by turn, in several arms, and say what each one cost.

    Example: `leyline replay runs.jsonl.gz --policy keep_last:n=5 --tokens-only --json out.json`

    An arm is a way to serve a run: without edits, or with the policy's edits on a prefix cache, or
    with a cache that forgets, splices (amortize) or repairs. For each, the table says which prompt
    tokens were reused and which computed, and with a model how long the first token took. Ctrl-C
    loses only the run under way; with `--json OUT`, `--resume` goes on. With `--concurrency`,
    `--adapter` or `--workload` all conversations are played at once against one engine. The exit
    status is 1 when a policy failed or an arm did not do what its name says, 2 on bad input, 130
    after Ctrl-C.
    """
    if workload or adapter or concurrency:
        refused = {"--html": html, "--resume": resume, "--fidelity": fidelity, "--jobs": jobs}
        _check_together(
            files, workload, adapter, policy, tokens_only, refused, concurrency=concurrency
        )
        _together(
            files or (),
            workload,
            arms=parse_arms(arms or ALL),
            concurrency=concurrency or "1",
            json=json,
            limit=limit,
            policy=policy[0] if policy else None,
            engine=adapter or "",
            model=model or "",
            tokens_only=tokens_only,
            reply_tokens=reply_tokens,
            max_turns=max_turns,
            fulfil=fulfil,
        )
        return
    if not files:
        raise LeylineError("no files to replay; name recorded runs, or --workload message_edit")
    _check(tokens_only, fidelity, resume, json)
    several = (policy or [""])[0].startswith("@") or len(policy or ()) > 1
    if several:
        _check_several(arms, html, resume)
    chosen = parse_arms(arms or ALL)
    kept = None if several else outputs.kept(json)
    outputs.check({"--json": json, "--html": html, "the runs kept for --json,": kept}, files)
    recorded = Workload(files, limit)
    recorded.check()
    editing = "keep_all" if several else _policy(policy[0] if policy else None, chosen)
    with serving():
        from leyline_agent.serving.models.embedded import DEFAULT
    config = Config(
        policy=editing,
        model=model or DEFAULT,
        tokens_only=tokens_only,
        max_turns=max_turns,
        fidelity_turns=fidelity_turns if fidelity else 0,
        fulfil=fulfil,
    )
    if several:
        _compared(policy or (), recorded, config, json, jobs)
    else:
        _apart(recorded, config, chosen, json, html, resume=resume, jobs=jobs)


def _compared(
    policies: Sequence[str],
    recorded: Workload,
    config: Config,
    json: Path | None,
    jobs: int | None,
) -> None:
    """Several policies, a row each."""
    with serving():
        from leyline_evals.replay import command
    with interruptible(None, FINISHED):
        fine = command.compare(policies, recorded.files, recorded.limit, config, json, jobs)
    raise typer.Exit(0 if fine else 1)


def _apart(
    recorded: Workload,
    config: Config,
    arms: Sequence[Arm],
    json: Path | None,
    html: Path | None,
    *,
    resume: bool,
    jobs: int | None,
) -> None:
    """Every run by itself, in every arm."""
    kept = outputs.kept(json)
    with serving():
        from leyline_evals.replay import command
        from leyline_evals.replay.engines import Engines
        from leyline_evals.replay.runner import replay as run_replay
    with interruptible(kept, FINISHED), command.Bar(recorded.limit) as bar:
        played = run_replay(
            recorded,
            config,
            Engines.load(config.model, tokens_only=config.tokens_only),
            arms=arms,
            keep=kept,
            resume=resume,
            jobs=jobs or command.cores(),
            progress=bar,
        )
    command.finish(played, json, html, "Leyline replay")
    if played.report.problems:
        raise typer.Exit(1)


def _check(tokens_only: bool, fidelity: bool, resume: bool, json: Path | None) -> None:
    if tokens_only and fidelity:
        raise LeylineError("--fidelity needs the model's predictions; leave --tokens-only out")
    if resume and outputs.kept(json) is None:
        raise LeylineError("--resume goes on with the file beside --json OUT; name OUT")


def _check_together(
    files: Sequence[Path] | None,
    workload: str | None,
    adapter: str | None,
    policies: Sequence[str] | None,
    tokens_only: bool,
    refused: Mapping[str, object],
    *,
    concurrency: str | None,
) -> None:
    """What does not go with conversations that share an engine.

    Raises:
        LeylineError: something of it was asked for.
    """
    if bool(files) == bool(workload):
        raise LeylineError("name recorded files or --workload message_edit, the one or the other")
    if len(policies or ()) > 1 or (policies or [""])[0].startswith("@"):
        raise LeylineError("with --workload, --adapter or --concurrency there is one --policy")
    if tokens_only and adapter:
        raise LeylineError("--tokens-only counts by itself; leave --adapter out")
    if tokens_only and "," in (concurrency or ""):
        raise LeylineError(
            f"--tokens-only counts the same at every concurrency; leave --concurrency "
            f"{concurrency} out, or --tokens-only"
        )
    for option, given in refused.items():
        if given:
            raise LeylineError(
                f"{option} does not go with --workload, --adapter or --concurrency; leave it out"
            )


def _together(
    files: Sequence[Path],
    workload: str | None,
    *,
    arms: Sequence[Arm],
    concurrency: str,
    json: Path | None,
    limit: int | None,
    policy: str | None,
    **config: Any,
) -> None:
    """Play all conversations at once against one engine."""
    outputs.check({"--json": json}, files)
    with serving():
        from leyline_evals.load.command import conversations, put, whole_numbers

        talks = conversations(files, workload, limit)
        editing = talks.policy if workload and policy is None else _policy(policy, arms)
        kept = json if json != outputs.STDOUT else None
        with interruptible(kept, "what was through is", "--concurrency asks for the rest"):
            fine = put(talks, editing, arms, whole_numbers(concurrency), json, **config)
    if not fine:
        raise typer.Exit(1)


def _check_several(arms: str | None, html: Path | None, resume: bool) -> None:
    for given, option in ((arms, "--arms"), (html, "--html"), (resume, "--resume")):
        if given:
            raise LeylineError(f"several policies make one table, without {option}; leave it out")


def _policy(text: str | None, arms: Sequence[Arm]) -> str:
    """The policy's text; where no arm edits, none is needed."""
    if text is not None:
        parse(text)
        return text
    editing = [arm.value for arm in arms if arm.edits]
    if editing:
        raise PolicyError(
            f"--policy is missing: it edits the runs in {', '.join(editing)}. Try --policy "
            f"keep_last:n=5; installed: {', '.join(sorted(available()))}"
        )
    return "keep_all"


def demo(
    html: Annotated[Path, typer.Option("--html", help="Where to write the page with plots.")] = (
        Path("leyline-demo.html")
    ),
    json: Json = None,
) -> None:
    """Replay a recorded agent run on a small real model: what an edit costs, spliced or not.

    Example: `leyline demo --html page.html`

    Takes two to three minutes, the first time longer: the model is fetched (98 MB). Prints one
    table of tokens, one of times, what their columns mean, and two sentences that compare: how many
    times sooner the first token came after an edit, and how many prompt tokens were computed.
    """
    outputs.check({"--json": json, "--html": html})
    with serving():
        from leyline_evals.demo.command import INTRODUCTION
        from leyline_evals.demo.command import demo as run_demo
        from leyline_evals.replay import command
    typer.echo(INTRODUCTION, err=json == outputs.STDOUT)
    with command.Bar(1) as bar:
        played = run_demo(bar)
    command.finish(played, json, html, "Leyline demo")
