"""What `leyline proxy` adds to a call: the same calls to an instant upstream, with and without it.

    python benchmarks/proxy.py [--messages 100 200] [--out benchmarks/results/proxy.json]

The upstream, the proxy and the load are a process each. Fifty conversations (each on a connection
of its own, as fifty agents have it) take turns at a given rate, whatever the answers take: an
agent's calls are seconds apart. Of every turn the same bytes go upstream three times, in random
order: directly, through the proxy, and directly again; the two direct calls tell the noise.

Where others compute on the machine, `chrt -r 20 python benchmarks/proxy.py` measures beside them:
every process here goes first. What they do to the caches stays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from common import save

POLICY = "keep_last:n=10"
HERE = Path(__file__).parent
ARMS = ("direct", "proxied", "direct again")


@dataclass
class Agent:
    """A conversation that grows by a call and its result a turn."""

    number: int
    rng: random.Random
    client: dict[str, aiohttp.ClientSession]
    turn: int = 0
    messages: list[str] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def begin(self, length: int) -> None:
        """A new conversation of so many messages."""
        task = f"Make the tests of project {self.number} pass; attempt {self.turn}."
        self.messages = [
            json.dumps({"role": "system", "content": "You fix bugs with a shell. " * 40}),
            json.dumps({"role": "user", "content": task}),
        ]
        while len(self.messages) < length:
            self.grow()

    def grow(self) -> str:
        """The next call and its result; the call's name."""
        self.turn += 1
        name = f"{self.number}-{self.turn}"
        call = {"name": "bash", "arguments": '{"command": "make test"}'}
        calls = [{"id": f"call_{name}", "type": "function", "function": call}]
        reply = {"role": "assistant", "content": "I will look.", "tool_calls": calls}
        words = " ".join(self.rng.choices("def return import error value path".split(), k=80))
        result = {"role": "tool", "tool_call_id": f"call_{name}", "content": words}
        self.messages += [json.dumps(reply), json.dumps(result)]
        return name

    @property
    def body(self) -> bytes:
        """The request, as a client's own library writes it."""
        return f'{{"model": "m", "messages": [{", ".join(self.messages)}]}}'.encode()


@dataclass
class Figures:
    """Milliseconds of each arm, and what the proxy did meanwhile."""

    times: dict[str, list[float]] = field(default_factory=lambda: {arm: [] for arm in ARMS})
    edits: int = 0
    late: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def free_port() -> int:
    """A port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process for as long as the block runs."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


async def turn(agent: Agent, urls: dict[str, str], figures: Figures, longest: int) -> None:
    """The same call in every arm, one after the other."""
    async with agent.lock:
        if len(agent.messages) >= longest or not agent.messages:
            agent.begin(2)
        name, body = f"{agent.number}-{agent.turn + 1}", agent.body
        for arm in agent.rng.sample(ARMS, len(ARMS)):
            headers = {
                "content-type": "application/json",
                "authorization": "Bearer key",
                "x-turn": name,
                "x-label": arm.partition(" ")[0],
            }
            started = time.perf_counter()
            async with agent.client[arm].post(urls[arm], data=body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200
            figures.times[arm].append((time.perf_counter() - started) * 1e3)
            figures.edits += int(answer.headers.get("leyline-edits", 0))
        figures.lengths.append(len(body))
        agent.grow()


async def load(
    upstream: str, proxy: str, options: argparse.Namespace, longest: int
) -> tuple[Figures, dict[str, int]]:
    """Turns at a steady rate; those that a conversation's earlier turn holds up wait for it."""
    chat = "/v1/chat/completions"
    urls = {arm: (proxy if arm == "proxied" else upstream) + chat for arm in ARMS}
    rng = random.Random(0)
    clients = [
        {arm: aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) for arm in ARMS}
        for _ in range(options.sessions)
    ]
    agents = [Agent(i, random.Random(i), client) for i, client in enumerate(clients)]
    for agent in agents:
        agent.begin(rng.randrange(4, longest, 2))
    figures, warm = Figures(), Figures()
    for agent in agents:
        await turn(agent, urls, warm, longest)
    started, tasks = time.perf_counter(), []
    count = int(options.rate * options.seconds)
    for number in range(count):
        due = started + number / options.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        figures.late.append((time.perf_counter() - due) * 1e3)
        agent = agents[number % len(agents)]
        tasks.append(asyncio.create_task(turn(agent, urls, figures, longest)))
    await asyncio.gather(*tasks)
    async with clients[0]["direct"].get(upstream + "/sizes") as answer:
        sizes = await answer.json(content_type=None)
    for client in clients:
        for session in client.values():
            await session.close()
    return figures, sizes


def told(times: list[float]) -> dict[str, float]:
    """Percentiles."""
    ordered = sorted(times)
    at = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {name: round(ordered[int(len(ordered) * q)], 2) for name, q in at.items()}


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(options: argparse.Namespace, longest: int) -> dict[str, Any]:
    """Run the processes and the load, with conversations that grow to so many messages."""
    port, python = free_port(), sys.executable
    upstream = f"http://127.0.0.1:{port}"
    leyline = [python, "-c", "from leyline_agent.cli import main; main()", "proxy"]
    proxied = [*leyline, "--upstream", upstream, "--port", "0", "--json", "--policy", POLICY]
    with (
        running(python, str(HERE / "proxy_upstream.py"), str(port)),
        running(*proxied) as process,
    ):
        assert process.stdout is not None
        report = json.loads(process.stdout.readline())
        used = cpu_seconds(process.pid)
        figures, sizes = asyncio.run(load(upstream, report["url"], options, longest))
        used = cpu_seconds(process.pid) - used
    turns = len(figures.lengths)
    arms = {arm: told(times) for arm, times in figures.times.items()}
    added = {at: round(arms["proxied"][at] - arms["direct"][at], 2) for at in arms["direct"]}
    noise = {at: round(arms["direct again"][at] - arms["direct"][at], 2) for at in arms["direct"]}
    assert figures.edits > turns / 4, "the proxy edited too little"
    assert sizes["proxied"] < 0.75 * sizes["direct"] / 2, "the edits did not reach the upstream"
    return {
        "turns": turns,
        "messages_at_most": longest,
        "request_characters": told([float(length) for length in figures.lengths]),
        "milliseconds": arms,
        "added_ms": added,
        "noise_ms": noise,
        "proxy_cpu_ms_a_turn": round(used / (turns + options.sessions) * 1e3, 2),
        "edits": figures.edits,
        "bytes_upstream": sizes,
        "load_behind_schedule_ms": told(figures.late),
    }


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument(
        "--messages", type=int, nargs="+", default=[100, 200], help="what conversations grow to"
    )
    parser.add_argument("--rate", type=float, default=20.0, help="turns a second, of all sessions")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out")
    options = parser.parse_args()
    figures = {
        "real_time_priority": os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO),
        "sessions": options.sessions,
        "turns_a_second": options.rate,
        "policy": POLICY,
        "lengths": [measure(options, longest) for longest in options.messages],
    }
    save(options.out, "proxy", figures)


if __name__ == "__main__":
    main()
