"""Starts the engines that engines.py and engine_fidelity.py compare, each in its own process.

    bundled     this interpreter
    vllm        a server in .venvs/vllm, or of $LEYLINE_VLLM_PYTHON: one with the connector, one as
                vLLM comes; a client of it in this interpreter
    llama.cpp   .venvs/llama-cpp, or $LEYLINE_LLAMA_CPP_PYTHON

An engine that is not here is said and left out.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from processes import tree_peak_mb

from leyline_adapters.vllm.serve import command, environment, version_of
from leyline_agent.cli.engines import Serving

ENGINES = ("bundled", "vllm", "llama.cpp")
ROOT = Path(__file__).resolve().parent.parent
CHILD = ROOT / "benchmarks" / "engine_child.py"
PYTHONS = {
    "vllm": ("LEYLINE_VLLM_PYTHON", ROOT / ".venvs" / "vllm"),
    "llama.cpp": ("LEYLINE_LLAMA_CPP_PYTHON", ROOT / ".venvs" / "llama-cpp"),
}
HOW = {"vllm": "make test-vllm", "llama.cpp": "make test-llama-cpp"}
STARTS_IN_S = 600
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "OMP_WAIT_POLICY": "passive",
}


class Setup(NamedTuple):
    """What all engines are given.

    Attributes:
        model: a known name.
        threads: of each engine.
        max_len: tokens of the longest sequence.
        kv_gb: room for keys and values.
        folder: for logs and converted weights.
    """

    model: str
    threads: int
    max_len: int
    kv_gb: int
    folder: Path


class Peer:
    """One engine's process: a line in, a line out."""

    def __init__(self, python: str, spec: Mapping[str, Any], setup: Setup) -> None:
        paths = [ROOT, *(ROOT / name for name in ("adapters", "policies", "evals"))]
        variables = {"PYTHONPATH": os.pathsep.join(map(str, paths)), **QUIET}
        self._log = setup.folder / f"{spec['engine']}-{time.monotonic_ns()}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [python, str(CHILD), json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **variables, "OMP_NUM_THREADS": str(setup.threads)},
            )
        self.serves: int | None = None
        self.version = ""

    def ready(self) -> str:
        """Wait for it; its version."""
        return str(self._answer()["version"])

    def do(self, **job: Any) -> dict[str, Any]:
        """One job's figures."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        found = self._answer()
        if self.serves is not None:  # it only talks to the engine
            found["peak_mb"] = tree_peak_mb(self.serves)
        return found

    def close(self) -> None:
        """End it."""
        self.process.kill()
        with self.process:  # closes the pipes
            pass

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("an engine's process ended:\n" + self._log.read_text()[-4000:])
        answer: dict[str, Any] = json.loads(line)
        return answer


def named(text: str) -> list[str]:
    """Engines named on the command line, each once."""
    found = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in found if name not in ENGINES]:
        known = ", ".join(ENGINES)
        raise argparse.ArgumentTypeError(f"no engine is named {unknown[0]!r}; there are {known}")
    return found


def count(text: str) -> int:
    """A whole number of at least 1, of the command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def share(text: str) -> float:
    """A number above 0, of the command line."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return found


def missing(engine: str) -> str:
    """Why an engine is left out; "" when it is here."""
    if engine not in PYTHONS or Path(python_of(engine)).exists():
        return ""
    variable, folder = PYTHONS[engine]
    return f"{engine} is left out: no {folder.relative_to(ROOT)} ({HOW[engine]}), no ${variable}"


def python_of(engine: str) -> str:
    """The interpreter that has an engine."""
    if engine not in PYTHONS:
        return sys.executable
    variable, folder = PYTHONS[engine]
    return os.environ.get(variable) or str(folder / "bin" / "python")


@contextmanager
def peers(wanted: Sequence[tuple[str, bool]], setup: Setup) -> Iterator[dict[Any, Peer]]:
    """Engines by (name, whether it may splice), all of them started."""
    # Ended by `kill` or `timeout`, this process still ends the servers it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        found: dict[Any, Peer] = {}
        servers: dict[Any, Server] = {}
        for key in wanted:
            if key[0] == "vllm":
                servers[key] = Server(key[1], setup)
                stack.callback(servers[key].close)
        for key in wanted:
            spec = {
                "engine": key[0],
                "model": setup.model,
                "threads": setup.threads,
                "cells": setup.max_len,
                "kv_bytes": setup.kv_gb << 30,
                "folder": str(setup.folder),
            }
            python = python_of(key[0])
            if key in servers:
                servers[key].wait()
                spec["url"], python = servers[key].url, sys.executable
            found[key] = Peer(python, spec, setup)
            stack.callback(found[key].close)
            found[key].serves = servers[key].process.pid if key in servers else None
            # One at a time: two would convert the same weights at once.
            found[key].version = found[key].ready()
            if key in servers:
                found[key].version = f"vllm {version_of(python_of('vllm'))}"
            print(f"{found[key].version} is ready, splices: {key[1]}", flush=True)
        yield found


class Server:
    """A vLLM server; as vLLM comes, without the connector, unless asked for it."""

    def __init__(self, connector: bool, setup: Setup) -> None:
        from leyline_agent.serving.models import embedded
        from leyline_agent.serving.models.load import unpacked

        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        more = ("--dtype", "bfloat16", "--max-model-len", str(setup.max_len), "--enforce-eager")
        serving = Serving(setup.model, setup.model, "127.0.0.1", port, arguments=more)
        folder = str(unpacked(embedded.resolve(setup.model)))
        line = command(python_of("vllm"), serving, folder)
        variables = {**os.environ, **QUIET, "VLLM_CPU_KVCACHE_SPACE": str(setup.kv_gb)}
        variables["OMP_NUM_THREADS"] = str(setup.threads)
        if connector:
            variables |= environment(variables)
        else:
            at = line.index("--kv-transfer-config")
            del line[at : at + 2]
        self.url = f"http://127.0.0.1:{port}"
        self._log = setup.folder / f"vllm-{port}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                line,
                env=variables,
                stdout=log,
                stderr=log,
                cwd=setup.folder,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Return once it answers."""
        end = time.monotonic() + STARTS_IN_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(1)
        raise SystemExit("the vLLM server did not start:\n" + self._log.read_text()[-4000:])

    def close(self) -> None:
        """End it and what it started."""
        os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
