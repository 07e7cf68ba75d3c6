"""`leyline serve`: an OpenAI-compatible server for one model, with Leyline's edits."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from pydantic import BaseModel

from leyline_agent.cli.engines import Serving, find
from leyline_agent.directive import Mode
from leyline_agent.errors import LeylineError
from leyline_agent.serving.models import embedded

if TYPE_CHECKING:
    from leyline_agent.serving.chat import ChatService
    from leyline_agent.serving.engine import EngineConfig

__all__ = ["ServeReport", "command", "listen"]

OWN = "leyline"
_SHARED = {"arguments", "engine", "python", "only_print", "model", "name", "host", "port"}
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class ServeReport(BaseModel):
    """What `leyline serve --json` prints, on one line, when the server listens."""

    format: Literal["leyline-serve"] = "leyline-serve"
    version: Literal[1] = 1
    url: str
    model: str
    pid: int
    context_length: int
    dtype: str
    device: str
    kv_slots: int
    tools: Literal["native", "fallback"]
    splice: bool


def command(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Behind --: another engine's own arguments.")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="leyline, or another engine that is told of edits: vllm.")
    ] = OWN,
    python: Annotated[
        str, typer.Option("--python", help="The interpreter that has the other engine.")
    ] = "",
    only_print: Annotated[
        bool, typer.Option("--print", help="Print another engine's command; do not run it.")
    ] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A known name, a folder, a .gguf file or a hub id.")
    ] = embedded.DEFAULT,
    name: Annotated[
        str | None, typer.Option(help="What clients call the model; made from --model if absent.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    dtype: Annotated[
        str, typer.Option(help="auto, float32, bfloat16 or float16; of weights and KV.")
    ] = "auto",
    device: Annotated[
        str, typer.Option(help="auto (a GPU where there is one), cpu, cuda or cuda:1.")
    ] = "auto",
    kv_gib: Annotated[
        float, typer.Option(min=0, max=1 << 20, help="Memory for keys and values, in GiB.")
    ] = 2.0,
    max_batch: Annotated[
        int, typer.Option(min=1, help="Continue at most this many replies at once.")
    ] = 16,
    chunk: Annotated[
        int,
        typer.Option(
            min=1, help="Compute at most this many tokens a pass; fewer: streams are smoother."
        ),
    ] = 1024,
    mode_floor: Annotated[
        Mode, typer.Option(help="The weakest mode an edit is carried out in.")
    ] = Mode.AMORTIZE,
    repair_window: Annotated[
        int | None,
        typer.Option(min=0, help="Tokens REPAIR computes again at each edit's boundary."),
    ] = None,
    fidelity_report: Annotated[
        Path | None,
        typer.Option(help="A report of leyline fidelity on this model, whose floor is obeyed."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for machines when ready.")
    ] = False,
) -> None:
    """Serve a model over HTTP: OpenAI's chat and completions, with sessions, edits and receipts.

    Example: `leyline serve --model ./my-model --port 8001`

    Prints the address and a curl command that works when the model is loaded; point any OpenAI
    client there. Logs go to standard error, Ctrl-C stops it.

    Nobody is asked for a password: a bearer token only tells tenants apart. Keep it on this
    machine, or behind a proxy that knows its users.

    `leyline serve --engine vllm --model ./my-model -- --tensor-parallel-size 2` starts vLLM with
    Leyline's connector; --model, --name, --host and --port mean the same there.
    """
    if engine != OWN:
        _check_shared(context)
        asked = Serving(model, name, host, port, python, only_print, tuple(arguments or ()))
        find(engine).serve(asked)
        return
    if arguments or python or only_print:
        given = "arguments behind --" if arguments else "--python" if python else "--print"
        raise LeylineError(f"{given} are for other engines; name one with --engine")
    with listen(host, port) as bound:
        service = _load(
            model,
            name,
            lambda: _config(
                kv_gib, dtype, device, max_batch, chunk, mode_floor, repair_window, fidelity_report
            ),
        )
        report = _report(service, bound)
        _serve(service, bound, lambda: _announce(report, json))


def _check_shared(context: typer.Context) -> None:
    """Refuse options that only our own engine has."""
    for parameter, value in context.params.items():
        source = context.get_parameter_source(parameter)
        if source is not None and source.name == "COMMANDLINE" and parameter not in _SHARED:
            flag = "--" + parameter.replace("_", "-")
            raise LeylineError(
                f"{flag}{_as_typed(value)} is an option of our own engine; give another engine's "
                "own options behind --"
            )


def _as_typed(value: object) -> str:
    """An option's value as the command line has it; nothing for a flag."""
    if isinstance(value, bool):
        return ""
    return f" {value.value if isinstance(value, Enum) else value}"


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to an address; it does not accept connections yet.

    Raises:
        LeylineError: the port is in use or forbidden, or the address is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise LeylineError(_why_not(host, port, error)) from error
    return bound


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use; stop what listens there, or choose another with "
            "--port (0 takes a free one)"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this user; choose one above 1023 with --port"
    return f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host"


def _load(model: str, name: str | None, config: Callable[[], EngineConfig]) -> ChatService:
    source = embedded.resolve(model, progress=_tell)
    _tell(f"loading {model}")
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401

        from leyline_agent.serving.chat import ChatService
        from leyline_agent.serving.engine import Engine
        from leyline_agent.serving.models.load import load_model
    except ModuleNotFoundError as error:
        raise LeylineError(
            f"serving needs libraries that are not installed ({error}); "
            "pip install 'leyline-agent[serve]'"
        ) from error
    called = name or _name(model)
    settings = config()
    loaded = load_model(source, dtype=settings.dtype, device=settings.device, name=called)
    return ChatService(Engine.of(loaded, settings), called, loaded.tokenizer)


def _name(model: str) -> str:
    """A known name or hub id as it is; a file or folder by its last part."""
    path = Path(model).expanduser()
    if model in embedded.KNOWN or not path.exists():
        return model
    return path.stem if path.is_file() else path.resolve().name


def _config(
    kv_gib: float,
    dtype: str,
    device: str,
    max_batch: int,
    chunk: int,
    floor: Mode,
    window: int | None,
    fidelity_report: Path | None,
) -> EngineConfig:
    from leyline_agent.serving.engine import EngineConfig
    from leyline_agent.serving.modes import ModeRules
    from leyline_agent.serving.repair import RepairConfig

    return EngineConfig(
        kv_bytes=int(kv_gib * 2**30),
        dtype=dtype,
        device=device,
        max_batch=max_batch,
        chunk=chunk,
        rules=ModeRules(floor=floor),
        repair=RepairConfig() if window is None else RepairConfig(window=window),
        fidelity_report=fidelity_report,
    )


def _serve(service: ChatService, bound: socket.socket, ready: Any) -> None:
    from leyline_agent.serving.server import create_app
    from leyline_agent.serving.server.run import run

    try:
        run(create_app(service), bound, ready)
    except KeyboardInterrupt:  # uvicorn hands the signal on when it has stopped
        _tell("stopped")


def _report(service: ChatService, bound: socket.socket) -> ServeReport:
    from leyline_agent.serving.engine import Engine

    engine = service.engine
    assert isinstance(engine, Engine)
    assert engine.model is not None
    return ServeReport(
        url=_url(bound),
        model=service.name,
        pid=os.getpid(),
        context_length=engine.max_len,
        dtype=str(engine.model.dtype).removeprefix("torch."),
        device=str(engine.model.device),
        kv_slots=engine.pool.num_slots,
        tools="native" if service.chat.tools_native else "fallback",
        splice=engine.facts.refusal is None,
    )


def _url(bound: socket.socket) -> str:
    """The address a client on this machine uses."""
    host, port = bound.getsockname()[:2]
    host = _EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _announce(report: ServeReport, json: bool) -> None:
    if json:
        typer.echo(report.model_dump_json())
        return
    splice = "edits are spliced" if report.splice else "edits re-prefill (see /v1/models)"
    typer.echo(
        f"""
{report.model} is served at {report.url}/v1  (Ctrl-C stops it)
{report.context_length} tokens of context, KV for {report.kv_slots} tokens, {report.dtype}, {splice}

  curl {report.url}/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"messages": [{{"role": "user", "content": "Say hello."}}], "max_tokens": 32}}'
"""
    )


def _tell(line: str) -> None:
    typer.echo(line, err=True)
