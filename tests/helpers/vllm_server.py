"""Starts a real vLLM server with the connector, and talks to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from leyline_adapters.vllm import serve
from leyline_adapters.vllm.wire import KEY, Ask, Told

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = 32
NUM_BLOCKS = 160  # 5,120 tokens: one request of the longest, and little beside it
MAX_LEN = 4096
STARTS_IN_S = 300
SERVED = "smollm2"
TRANSFER = {
    "kv_connector": "WatchedConnector",
    "kv_connector_module_path": "watched_connector",
    "kv_role": "kv_both",
    "kv_load_failure_policy": "recompute",
}


@dataclass
class Server:
    """A running server."""

    url: str
    model: str
    log_file: Path
    switches: Path

    def log(self) -> str:
        """What it has printed so far."""
        return self.log_file.read_text(errors="replace")

    def complete(
        self,
        ids: Sequence[int],
        ask: Ask | dict[str, Any] | None = None,
        *,
        tokens: int = 1,
        salt: str = "",
        **extra: Any,
    ) -> dict[str, Any]:
        """A completion of token ids, its top log-probabilities included."""
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(ids),
            "max_tokens": tokens,
            "temperature": 0,
            "logprobs": 5,
            "return_token_ids": True,
            **extra,
        }
        if salt:
            body["cache_salt"] = salt
        if ask is not None:
            said = ask.model_dump(mode="json") if isinstance(ask, Ask) else ask
            body["kv_transfer_params"] = {KEY: said}
        response = httpx.post(f"{self.url}/v1/completions", json=body, timeout=300)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def told(self, answer: dict[str, Any]) -> Told:
        """The connector's receipt."""
        return Told.model_validate(answer["kv_transfer_params"][KEY])

    def ask(self, ids: Sequence[int], ask: Ask, **extra: Any) -> tuple[Told, dict[str, Any]]:
        """A completion with an ask: its receipt, and the answer."""
        answer = self.complete(ids, ask, **extra)
        return self.told(answer), answer

    def cached(self, answer: dict[str, Any]) -> int:
        """Tokens that vLLM itself says it did not compute."""
        return int((answer["usage"].get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def environment(folder: Path) -> dict[str, str]:
    """What the server needs: our packages, and nothing from the network."""
    ours = serve.environment({"PYTHONPATH": str(ROOT / "tests" / "vllm")})
    return {
        **os.environ,
        **ours,
        "LEYLINE_TEST_SWITCHES": str(folder),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
    }


def command(port: int) -> list[str]:
    """How the server is started."""
    options = {
        "--model": os.environ["LEYLINE_VLLM_MODEL"],
        "--served-model-name": SERVED,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--dtype": "bfloat16",
        "--max-model-len": str(MAX_LEN),
        "--block-size": str(BLOCK),
        "--num-gpu-blocks-override": str(NUM_BLOCKS),
        "--max-num-batched-tokens": "1024",
        "--kv-transfer-config": json.dumps(TRANSFER),
    }
    flat = [part for pair in options.items() for part in pair]
    server = [os.environ["LEYLINE_VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server"]
    return [*server, *flat, "--enforce-eager", "--enable-prompt-tokens-details"]


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server, with its log and its switches in `folder`; it takes half a minute or more."""
    switches = folder / "switches"
    switches.mkdir()
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    found = Server(f"http://127.0.0.1:{port}", SERVED, folder / "log", switches)
    with found.log_file.open("w") as log:
        process = subprocess.Popen(
            command(port), env=environment(switches), cwd=folder,
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        _wait_until_healthy(found, process)
        yield found
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)


def _wait_until_healthy(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Return once it answers.

    Raises:
        RuntimeError: it ended, or does not; with the end of its log.
    """
    end = time.monotonic() + STARTS_IN_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise RuntimeError("the server did not start:\n" + server.log()[-6000:])
