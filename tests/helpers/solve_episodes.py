"""An agent that reads long outputs, by each mechanism of a backend: what `leyline eval` counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leyline_agent.session import Session
from leyline_evals.solve.arms import Mechanism, SolveArm
from leyline_evals.solve.backend import Backend
from leyline_evals.solve.driver import Limits, StepRecord
from leyline_evals.solve.episode import EpisodeModel


def episode(
    backend: Backend,
    mechanism: Mechanism,
    tenant: str,
    script: Sequence[str] = (),
    num_lines: int = 12,
    reply_tokens: int = 40,
    kept: int = 1,
) -> list[StepRecord]:
    """The steps of an agent that reads long outputs, of which the last few are `kept` whole.

    The last step edits one that the engine has seen, with the replies and outputs behind it.
    """
    channel = backend.open(mechanism, tenant, script)
    arm = SolveArm(policy=f"truncate_older_than:n={kept},max_chars=50", mechanism=mechanism)
    session = Session(arm.policies(), channel.adapter, observations="user")
    limits = Limits(reply_tokens=reply_tokens, repeats=0)
    model = EpisodeModel(session, channel.call, limits, {"seed": 1, "temperature": 0.0})
    messages: list[Any] = [{"role": "user", "content": "Say what the files hold."}]
    steps = []
    try:
        for number in range(2 + kept):
            messages.append(model(messages))
            steps.append(model.step("read"))
            output = f"file {number}: " + "".join(
                f"line {n} of {number}\n" for n in range(num_lines)
            )
            messages.append({"role": "user", "content": output})
    finally:
        channel.close()
    return steps


def check_mechanisms(found: dict[Mechanism, list[StepRecord]]) -> None:
    """That every mechanism did what it is called after, on the same prompts."""
    for steps in found.values():
        for step in steps:
            assert step.exact + step.spliced + step.recomputed + step.prefilled == step.prompt
    plain, cached = found[Mechanism.PLAIN], found[Mechanism.PREFIX_CACHE]
    assert all(step.exact == step.spliced == 0 for step in plain)
    assert all(step.exact for step in cached[1:])
    for name in (Mechanism.PREFIX_CACHE, Mechanism.FORGET):
        assert not any(step.spliced for step in found[name])
    assert sum(step.spliced for step in found[Mechanism.AMORTIZE]) > 0
    assert sum(step.recomputed for step in found[Mechanism.REPAIR]) > 0
    computed = {
        name: sum(step.recomputed + step.prefilled for step in steps)
        for name, steps in found.items()
    }
    assert computed[Mechanism.AMORTIZE] < computed[Mechanism.FORGET] < computed[Mechanism.PLAIN]
