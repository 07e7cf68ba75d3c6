"""What the connector does to vLLM: an edit behind it and on the stock server, and what it costs.

    make test-vllm ARGS=--collect-only    # makes vLLM's environment, if it is not there
    python benchmarks/vllm_splice.py [--rounds 10] [--out benchmarks/results/vllm_splice.json]

Two servers with the embedded model, one with the connector; each request goes to one at a time,
and the arms take turns. A round: a prompt of --prompt new tokens, then the same with --cut of them
taken out and --new behind it. Time to first token is a completion of one token, HTTP included. The
first two rounds are not counted: they fill the pool, whose memory is slow when touched first.

`without_asks`: pairs of a request (300 new tokens, 24 generated) on both servers, in turns which
goes first; connector / stock, of the time a request takes (median of pairs) and of the processor
time of all its server's processes (of all pairs together, which a busy machine changes little).
Intervals are 95 %, bootstrapped over pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from common import random_tokens, save, spread
from processes import tree_cpu_s

from leyline_adapters.vllm.serve import TRANSFER, environment
from leyline_adapters.vllm.wire import KEY, Ask, Claim, Told
from leyline_agent.serving.models import embedded

ROOT = Path(__file__).resolve().parent.parent
STARTS_IN_S = 600
BLOCKS = 512  # 16,384 tokens: a round needs 8,518, so from the third on no memory is touched first.
WARMUPS = 2
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
}


class Vllm(NamedTuple):
    """A running server: its address, and its first process."""

    url: str
    pid: int


@contextmanager
def server(name: str, python: str, model: Path, folder: Path, *more: str) -> Iterator[Vllm]:
    """A vLLM server."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    line = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    line += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
    line += ["--dtype", "bfloat16", "--max-model-len", "8192", "--enforce-eager", *more]
    line += ["--enable-prompt-tokens-details", "--block-size", "32"]
    line += ["--num-gpu-blocks-override", str(BLOCKS)]
    variables = {**os.environ, **OFFLINE, **environment(os.environ)}
    log = folder / name
    with log.open("w") as file:
        process = subprocess.Popen(
            line, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log)
        yield Vllm(url, process.pid)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTS_IN_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    sys.exit(f"a server did not start:\n{log.read_text()[-3000:]}")


def complete(
    client: httpx.Client, to: Vllm, ids: Sequence[int], ask: Ask | None = None, tokens: int = 1
) -> tuple[float, dict[str, Any]]:
    """Milliseconds of a completion, and the answer."""
    body: dict[str, Any] = {
        "model": "m", "prompt": list(ids), "max_tokens": tokens, "temperature": 0,
        "ignore_eos": True,
    }  # fmt: skip
    if ask is not None:
        body["kv_transfer_params"] = {KEY: ask.model_dump(mode="json")}
    started = time.perf_counter()
    response = client.post(f"{to.url}/v1/completions", json=body)
    took = (time.perf_counter() - started) * 1e3
    return took, response.raise_for_status().json()


def edits(client: httpx.Client, with_it: Vllm, stock: Vllm, given: argparse.Namespace) -> Any:
    """A cut behind an eighth of a prompt, on both servers, with prompts that no round repeats."""
    spliced, stocked, splices, beyond = [], [], [], []
    for number in range(given.rounds + WARMUPS):
        tokens = random_tokens(given.prompt + given.new, seed=number)
        whole, new = tokens[: given.prompt], tokens[given.prompt :]
        at = given.prompt // 8
        edited = whole[:at] + whole[at + given.cut :] + new
        _, answer = complete(client, with_it, whole, Ask(session=f"round {number}"))
        handle = Told(**answer["kv_transfer_params"][KEY]).handle
        complete(client, stock, whole)
        claims = (
            Claim(source=handle, start=0, end=at, at=0),
            Claim(source=handle, start=at + given.cut, end=given.prompt, at=at),
        )
        ask = Ask(session=f"round {number}", base=handle, claims=claims, release=(handle,))
        took, answer = complete(client, with_it, edited, ask)
        told = Told(**answer["kv_transfer_params"][KEY])
        assert told.reused_spliced > 0, told
        stock_took, stock_answer = complete(client, stock, edited)
        if number >= WARMUPS:
            spliced.append(took)
            stocked.append(stock_took)
            splices.append(told.splice_us / 1e3)
            beyond.append(told.prefilled - given.new)
    last = stock_answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return {
        "prompt": given.prompt, "cut": given.cut, "new": given.new,
        "moved": given.prompt - given.prompt // 8 - given.cut,
        "prefilled_beyond_new": max(beyond),
        "stock_prefilled": len(edited) - last,
        "ttft_ms": spread(spliced), "stock_ttft_ms": spread(stocked),
        "ttft_times_sooner": round(statistics.median(
            slow / fast for slow, fast in zip(stocked, spliced, strict=True)
        ), 2),
        "splice_ms": spread(splices),
    }  # fmt: skip


def without_asks(client: httpx.Client, with_it: Vllm, stock: Vllm, pairs: int) -> Any:
    """Requests that ask nothing, on both servers."""
    wall: dict[Vllm, list[float]] = {with_it: [], stock: []}
    cpu: dict[Vllm, list[float]] = {with_it: [], stock: []}
    for number in range(pairs + 2):
        ids = random_tokens(300, seed=10_000 + number)
        for to in (with_it, stock) if number % 2 else (stock, with_it):
            before = tree_cpu_s(to.pid)
            took, _ = complete(client, to, ids, tokens=24)
            if number > 1:
                wall[to].append(took)
                cpu[to].append(tree_cpu_s(to.pid) - before)
    return {
        "connector_ms": spread(wall[with_it]),
        "stock_ms": spread(wall[stock]),
        "ratio": ratio(wall[with_it], wall[stock], lambda a, b: float(np.median(a / b))),
        "stock_cpu_s": round(sum(cpu[stock]) / pairs, 4),
        "cpu_ratio": ratio(cpu[with_it], cpu[stock], lambda a, b: float(a.sum() / b.sum())),
    }


def ratio(left: list[float], right: list[float], of: Callable[[Any, Any], float]) -> list[float]:
    """A ratio of paired figures, and its 95 % interval."""
    a, b = np.array(left), np.array(right)
    draws = np.random.default_rng(0).integers(len(a), size=(2_000, len(a)))
    low, high = np.percentile([of(a[d], b[d]) for d in draws], (2.5, 97.5))
    return [round(float(one), 4) for one in (of(a, b), low, high)]


def main() -> None:
    """Start both servers, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=str(ROOT / ".venvs" / "vllm" / "bin" / "python"))
    parser.add_argument("--prompt", type=int, default=5_000)
    parser.add_argument("--cut", type=int, default=1_500)
    parser.add_argument("--new", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--out")
    given = parser.parse_args()
    from leyline_agent.serving.models.load import unpacked

    model = unpacked(embedded.resolve(embedded.DEFAULT))
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        connector = ("--kv-transfer-config", json.dumps(TRANSFER))
        with_it = stack.enter_context(server("with", given.python, model, folder, *connector))
        stock = stack.enter_context(server("stock", given.python, model, folder))
        client = stack.enter_context(httpx.Client(timeout=300))
        figures = {
            "edit": edits(client, with_it, stock, given),
            "without_asks": without_asks(client, with_it, stock, given.pairs),
        }
    save(given.out, "vllm_splice", figures)


if __name__ == "__main__":
    main()
