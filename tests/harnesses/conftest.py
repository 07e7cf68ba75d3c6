"""What the frameworks' tests share: an episode's tool output, its policy, and what must hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

POLICY = "truncate_older_than:n=1,max_chars=60"

Sent = Sequence[tuple[str, str, str]]
"""A request as tuples: role, text, and the ids of the calls it makes or answers."""


@pytest.fixture
def policy() -> str:
    """Stubs every tool result but the newest."""
    return POLICY


@pytest.fixture
def output() -> Callable[[int], str]:
    """What the tool prints the n-th time: too long for the policy."""
    return lambda number: f"output {number}\n" + f"line of output {number}\n" * 40


@pytest.fixture
def check() -> Callable[[Sequence[Sent]], None]:
    """Check the requests of one episode, oldest first: edited, paired, and stable."""

    def check(requests: Sequence[Sent]) -> None:
        for request in requests:
            results = [text for role, text, _ in request if role == "tool"]
            assert all(len(text) < 200 for text in results[:-1]), "an old output was not stubbed"
            assert all(len(text) > 500 for text in results[-1:]), "the newest output was cut"
            made = [id for role, _, ids in request if role == "assistant" for id in ids.split()]
            answered = [ids for role, _, ids in request if role == "tool"]
            assert made == answered, "a call lost its result"
        for before, after in zip(requests, requests[1:], strict=False):
            changed = [i for i, one in enumerate(before) if tuple(after[i : i + 1]) != (one,)]
            newest = [i for i, one in enumerate(before) if one[0] == "tool"][-1:]
            assert set(changed) <= set(newest), "the view changed where nothing was new"
        assert len(requests[-1]) > len(requests[0])

    return check
