"""When to edit: the same agent and policy, each edit at once and when it costs least.

    python examples/timing.py

The provider is played by a script with an exact prefix cache; no key and no network are needed.
"""

from __future__ import annotations

import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, tool_call

TURNS = 24
PRICES = leyline.Prices(read=0.1, write=1.25)  # Anthropic's
OUTPUT = "tests/test_table.py::test_rows PASSED\n" * 60


def run_agent(timing: leyline.Timing | str) -> leyline.Session:
    """An agent that calls a tool in every turn; its session."""
    client = DeterministicModel(*[tool_call("bash", command="make test")] * TURNS, "Done.")

    @leyline.wrap(policies="keep_last:n=5", timing=timing)
    def call_model(messages: list[dict]) -> dict:
        return client.chat.completions.create(model="any", messages=messages)

    messages = [{"role": "user", "content": "Does everything pass?"}]
    while messages[-1]["role"] != "assistant":
        reply = call_model(messages).choices[0].message
        messages.append(reply)
        for call in reply.get("tool_calls", ()):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": OUTPUT})
    (session,) = call_model.leyline.sessions
    return session


def main() -> None:
    """Run both, and say what the provider would charge."""
    for timing in ("now", leyline.Timing(prices=PRICES)):
        stats = run_agent(timing).stats()
        cost = PRICES.read * stats.reused_exact + PRICES.write * stats.prefilled
        name = timing if isinstance(timing, str) else "auto"
        print(
            f"{name:4} {stats.edits} edits, {stats.prompt:,} prompt tokens, {stats.prefilled:,} "
            f"of them not in the cache: the price of {cost:,.0f} uncached tokens"
        )


if __name__ == "__main__":
    main()
