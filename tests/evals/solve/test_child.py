from __future__ import annotations

import subprocess
import sys
import time

import pytest

from leyline_evals.solve.child import Child, ChildDied, ChildSilent
from leyline_evals.solve.sandbox import Bounds

ECHO = "import sys\nfor line in sys.stdin: print(line, end='', flush=True)"


def python(script: str, bounds: Bounds | None = None) -> Child:
    return Child([sys.executable, "-c", script], "the child", bounds)


def sleepers(mark: str) -> int:
    made = subprocess.run(["pgrep", "-fc", f"sleep {mark}"], capture_output=True, check=False)
    return int(made.stdout)


def gone(mark: str) -> bool:
    for _ in range(100):
        if not sleepers(mark):
            return True
        time.sleep(0.05)
    return False


def test_it_is_spoken_to() -> None:
    with python(ECHO) as child:
        for number in range(3):
            child.send({"number": number, "text": "ä\n" * 50_000})
            assert child.receive(30)["number"] == number


def test_a_death_is_told_with_the_last_words() -> None:
    with python("import sys; sys.exit('the disk is gone')") as child:
        with pytest.raises(ChildDied, match=r"the child died \(exit status 1\); it said: the disk"):
            child.receive(30)
        with pytest.raises(ChildDied, match="exit status 1"):
            child.send({"are": "you there"})


def test_a_signal_has_a_name() -> None:
    with python("import os; os.kill(os.getpid(), 9)") as child:
        with pytest.raises(ChildDied, match="signal 9, SIGKILL"):
            child.receive(30)


def test_silence_ends_it() -> None:
    with python("import time; time.sleep(4217)") as child:
        started = time.monotonic()
        with pytest.raises(ChildSilent, match=r"said nothing for 0\.3 s"):
            child.receive(0.3)
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("said", ["nonsense", "[1]", "'x' * 9"])
def test_nonsense_ends_it(said: str) -> None:
    with python(f"print({said!r}); import time; time.sleep(99)") as child:
        with pytest.raises(ChildDied, match="does not speak JSON"):
            child.receive(30)


def test_what_it_started_ends_with_it() -> None:
    script = (
        "import subprocess, time\n"
        "subprocess.Popen(['sleep', '4218'], start_new_session=True)\n"
        "print('{}', flush=True); time.sleep(99)"
    )
    with python(script) as child:
        child.receive(30)
        assert sleepers("4218") >= 1
    assert gone("4218")


def test_too_many_processes_end_it() -> None:
    script = (
        "import subprocess, time\n"
        "for n in range(30): subprocess.Popen(['sleep', '4219'])\n"
        "time.sleep(99)"
    )
    with python(script, Bounds(processes=10)) as child:
        with pytest.raises(ChildDied, match="was ended: it had more than 10 processes at once"):
            child.receive(60)
    assert gone("4219")


def test_too_much_memory_ends_it() -> None:
    script = "x = b'x' * (200 << 20)\nimport time; time.sleep(99)"
    words = ["sh", "-c", f'"{sys.executable}" -c "{script}"; true']
    with Child(words, "the child", Bounds(memory=100 << 20)) as child:
        with pytest.raises(
            ChildDied, match="was ended: its processes took more than 100 MiB of memory"
        ):
            child.receive(60)


def test_a_flood_of_complaints_is_not_kept() -> None:
    script = "import sys\nfor n in range(3000): sys.stderr.write('x' * 1000)\nprint('{}')"
    with python(script) as child:
        assert child.receive(60) == {}
        assert sum(map(len, child._complaints)) <= 64 << 10
