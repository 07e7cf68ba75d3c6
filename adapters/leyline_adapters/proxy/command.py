"""`leyline proxy`: manage any harness by changing its base URL."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import ModuleType
from typing import Annotated, Literal

import typer
from pydantic import BaseModel

from leyline_adapters.proxy.address import leads_to
from leyline_agent.cli.serve import listen
from leyline_agent.directive import Mode
from leyline_agent.errors import LeylineError
from leyline_agent.policy import as_policy
from leyline_agent.settings import SessionOptions
from leyline_agent.timing.timing import as_timing
from leyline_agent.wrapping.settings import journal_folder

__all__ = ["ProxyReport", "command"]

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class ProxyReport(BaseModel):
    """What `leyline proxy --json` prints, on one line, when the proxy listens."""

    format: Literal["leyline-proxy"] = "leyline-proxy"
    version: Literal[1] = 1
    url: str
    upstream: str
    adapter: str
    policy: str
    pid: int


def command(
    upstream: Annotated[
        str,
        typer.Option(
            "--upstream",
            "-u",
            envvar="LEYLINE_UPSTREAM",
            help="The provider's or server's base URL, as its clients have it.",
        ),
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            help="What edits: name:key=value,... joined by + or given again.  [no edits]",
        ),
    ] = None,
    adapter: Annotated[
        Literal["auto", "openai", "http"],
        typer.Option(help="http: a leyline serve, told of edits; openai: any other; auto asks."),
    ] = "auto",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8100,
    journal: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write each session's journal below it.")
    ] = None,
    mode_floor: Annotated[
        Mode | None, typer.Option(help="The weakest mode an edit is carried out in.")
    ] = None,
    observations: Annotated[
        Literal["tool", "user"],
        typer.Option(help="user: the harness sends tool output as user messages."),
    ] = "tool",
    timing: Annotated[
        str, typer.Option(help="When edits are made: now, or auto: when it costs least.")
    ] = "now",
    recall: Annotated[
        bool, typer.Option("--recall", help="Let the model see again what was cut, by a tool.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Seconds to wait for the upstream's next words.")
    ] = 600.0,
    max_sessions: Annotated[
        int, typer.Option(min=1, help="Keep so many; the one unused longest goes.")
    ] = 512,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for machines when ready.")
    ] = False,
) -> None:
    """Manage any harness by changing its base URL: an OpenAI and Anthropic API with policies.

    Example: `leyline proxy --upstream https://api.openai.com/v1 --policy keep_last:n=10`

    Calls to complete a chat are edited on their way, in sessions told apart by the header
    Leyline-Session, by a path /s/NAME/v1, or by their history; everything else goes through as it
    is. Keys go upstream untouched and are not logged; each key has sessions of its own.

    Whoever reaches the proxy reaches the upstream: keep it on this machine, or behind a proxy that
    knows its users.
    """
    edits = as_policy(list(policy or ["keep_all"]))
    folder = journal_folder(journal)
    options: SessionOptions = {
        "mode_floor": mode_floor,
        "observations": observations,
        "timing": as_timing(timing),
        "recall": _archive(folder) if recall else None,
    }
    with listen(host, port) as bound:
        needs = _needed()
        up = needs.Upstream(upstream, timeout)
        if leads_to(bound, up.host, up.port):
            raise LeylineError(
                f"--upstream {upstream} is where the proxy listens itself; name the provider's "
                "address, or listen at another --port"
            )
        engine = needs.Engine(up, adapter)
        sessions = needs.Sessions(edits, options, folder, max_sessions)

        def ready() -> None:
            report = ProxyReport(
                url=_url(bound),
                upstream=up.url,
                adapter=engine.name,
                policy=str(edits),
                pid=os.getpid(),
            )
            typer.echo(report.model_dump_json() if json else _banner(report))

        try:
            needs.run(needs.Proxy(up, engine, sessions), bound, ready)
        except KeyboardInterrupt:  # uvicorn hands the signal on when it has stopped
            typer.echo("stopped", err=True)


def _archive(folder: Path | None) -> bool | Path:
    """Where recalls are kept: with the journals, as a session resumed from one looks there."""
    return True if folder is None else folder / "archive.sqlite"


def _needed() -> ModuleType:
    """The parts that need libraries of their own.

    Raises:
        LeylineError: they are not installed.
    """
    try:
        from leyline_adapters.proxy import parts
    except ModuleNotFoundError as error:
        raise LeylineError(
            f"the proxy needs libraries that are not installed ({error}); "
            "pip install 'leyline-agent[proxy]'"
        ) from error
    return parts


def _url(bound: socket.socket) -> str:
    """The address a client on this machine uses."""
    host, port = bound.getsockname()[:2]
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _banner(report: ProxyReport) -> str:
    engine = {
        "auto": "not reached yet",
        "http": "a Leyline server: edits are spliced",
        "openai": "edits are text: what stands behind one is prefilled again",
    }
    return f"""
{report.upstream} is proxied at {report.url}/v1  (Ctrl-C stops it)
upstream: {engine[report.adapter]}; policies: {report.policy}

  export OPENAI_BASE_URL={report.url}/v1 ANTHROPIC_BASE_URL={report.url}
  curl {report.url}/health
"""
