"""Children: one after the other for many orders, a new one for each that failed."""

from __future__ import annotations

import sys
import time

import pytest

from leyline_evals.solve.errors import EvalError
from leyline_evals.swe_bench.channel import ChildFailed, Children, done

ECHO = """
import json, os, sys
for line in sys.stdin:
    told = json.loads(line)
    if told["op"] == "fail":
        answer = {"failed": "no room", "kind": "DiskFull"}
    elif told["op"] == "die":
        sys.exit("I fell over")
    else:
        answer = {"done": [told["op"], os.getpid()]}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def children() -> Children:
    return Children([sys.executable, "-c", ECHO], "the echo")


def test_a_child_serves_one_order_after_the_other(children: Children) -> None:
    pids = set()
    for _ in range(3):
        with children.one() as child:
            said, pid = done(child, 30, op="x")
        assert said == "x"
        pids.add(pid)
    assert len(pids) == 1
    children.close()


def test_a_child_that_fails_makes_room_for_another(children: Children) -> None:
    with children.one() as child:
        first = done(child, 30, op="x")[1]
    with pytest.raises(ChildFailed, match="DiskFull: no room") as raised, children.one() as child:
        done(child, 30, op="fail")
    assert raised.value.kind == "DiskFull"
    with children.one() as child:
        assert done(child, 30, op="x")[1] != first
    children.close()


def test_a_child_that_dies_is_told_with_its_last_words(children: Children) -> None:
    with pytest.raises(EvalError, match="the echo died .*I fell over"), children.one() as child:
        done(child, 30, op="die")


def test_a_child_that_says_nothing_is_ended() -> None:
    children = Children([sys.executable, "-c", "import time; time.sleep(60)"], "the sleeper")
    began = time.monotonic()
    with pytest.raises(EvalError, match="the sleeper said nothing for 0.3 s"):
        with children.one() as child:
            done(child, 0.3, op="x")
    assert time.monotonic() - began < 20
