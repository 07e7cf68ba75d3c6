"""The connector against a real server."""

from __future__ import annotations

import random

from vllm_server import Server

from leyline_adapters.vllm.wire import Ask, Claim


def ids(count: int, seed: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(1000, 40000) for _ in range(count)]


def test_a_deletion_is_spliced(server: Server) -> None:
    a, x, b, q = ids(210, 1), ids(301, 2), ids(700, 3), ids(18, 4)
    told, _ = server.ask(a + x + b, Ask(session="s"))
    assert told.prefilled == len(a + x + b)
    handle = told.handle
    n = len(a + x + b)
    told, answer = server.ask(
        a + b + q,
        Ask(
            session="s",
            base=handle,
            claims=(
                Claim(source=handle, start=0, end=len(a), at=0),
                Claim(source=handle, start=len(a) + len(x), end=n, at=len(a)),
            ),
        ),
    )
    print(told, answer["usage"])
    assert told.prefilled == len(q)
    assert told.spliced_from == len(a)
