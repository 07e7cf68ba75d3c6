"""What the connector does to vLLM: an edit behind it and on the stock server, and what it costs.

    make test-vllm ARGS=--collect-only    # makes vLLM's environment, if it is not there
    python benchmarks/vllm_splice.py [--rounds 5] [--out benchmarks/results/vllm_splice.json]

Two servers with the embedded model, one with the connector; each request goes to one at a time,
and the arms take turns. A round: a prompt of --prompt new tokens, then the same with --cut of them
taken out and --new behind it. Time to first token is a completion of one token, HTTP included.

`without_asks`: pairs of a request (300 new tokens, 24 generated) on both servers, in turns which
goes first; the ratio is the median over pairs of connector / stock.
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
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from common import machine, random_tokens, save, spread

from leyline_adapters.vllm.serve import TRANSFER, environment
from leyline_adapters.vllm.wire import KEY, Ask, Claim, Told
from leyline_agent.serving.models import embedded

ROOT = Path(__file__).resolve().parent.parent
STARTS_IN_S = 600
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
}


@contextmanager
def server(name: str, python: str, model: Path, folder: Path, *more: str) -> Iterator[str]:
    """A vLLM server; its address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    line = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    line += ["--served-model-name", "m", "--host", "127.0.0.1", "--port", str(port)]
    line += ["--dtype", "bfloat16", "--max-model-len", "8192", "--enforce-eager", *more]
    line += ["--enable-prompt-tokens-details"]
    variables = {**os.environ, **OFFLINE, **environment(os.environ)}
    log = folder / name
    with log.open("w") as file:
        process = subprocess.Popen(
            line, env=variables, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(url, process, log)
        yield url
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
    client: httpx.Client, url: str, ids: Sequence[int], ask: Ask | None = None, tokens: int = 1
) -> tuple[float, dict[str, Any]]:
    """Milliseconds of a completion, and the answer."""
    body: dict[str, Any] = {
        "model": "m", "prompt": list(ids), "max_tokens": tokens, "temperature": 0,
        "ignore_eos": True,
    }  # fmt: skip
    if ask is not None:
        body["kv_transfer_params"] = {KEY: ask.model_dump(mode="json")}
    started = time.perf_counter()
    response = client.post(f"{url}/v1/completions", json=body)
    took = (time.perf_counter() - started) * 1e3
    return took, response.raise_for_status().json()


def edits(client: httpx.Client, with_it: str, stock: str, given: argparse.Namespace) -> Any:
    """A cut behind an eighth of a prompt, on both servers, with prompts that no round repeats."""
    spliced, stocked, splices, beyond = [], [], [], []
    for number in range(given.rounds + 1):
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
        if number:
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


def without_asks(client: httpx.Client, with_it: str, stock: str, pairs: int) -> Any:
    """Requests that ask nothing, on both servers."""
    times: dict[str, list[float]] = {with_it: [], stock: []}
    for number in range(pairs + 2):
        ids = random_tokens(300, seed=10_000 + number)
        for url in (with_it, stock) if number % 2 else (stock, with_it):
            took, _ = complete(client, url, ids, tokens=24)
            if number > 1:
                times[url].append(took)
    ratios = [a / b for a, b in zip(times[with_it], times[stock], strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "connector_ms": spread(times[with_it]),
        "stock_ms": spread(times[stock]),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
    }


def main() -> None:
    """Start both servers, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=str(ROOT / ".venvs" / "vllm" / "bin" / "python"))
    parser.add_argument("--prompt", type=int, default=5_000)
    parser.add_argument("--cut", type=int, default=1_500)
    parser.add_argument("--new", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=30)
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
        before = machine()
        figures = {
            "edit": edits(client, with_it, stock, given),
            "without_asks": without_asks(client, with_it, stock, given.pairs),
            "machine_before": before,
        }
    save(given.out, "vllm_splice", figures)


if __name__ == "__main__":
    main()
