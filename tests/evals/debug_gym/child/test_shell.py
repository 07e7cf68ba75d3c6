from __future__ import annotations

import subprocess
import time

import pytest

from leyline_evals.debug_gym.child import shell

PATH = {"PATH": "/usr/bin:/bin"}


def run(command: str, seconds: float = 20.0) -> shell.Done:
    return shell.run(["bash", "-c", command], "/", PATH, seconds)


def test_output_and_errors_come_in_the_order_of_time() -> None:
    assert run("echo a; echo b >&2; echo c; exit 3") == (3, "a\nb\nc\n")


def test_a_command_that_hangs_ends_with_all_it_started() -> None:
    started = time.monotonic()
    done = run("echo begun; (sleep 4321; true) | cat", 0.5)
    assert done == (None, "begun\n")
    assert time.monotonic() - started < 10
    left = subprocess.run(["pgrep", "-f", "sleep 4321"], capture_output=True, check=False)
    assert left.returncode == 1


def test_what_is_left_in_the_background_is_not_waited_for() -> None:
    started = time.monotonic()
    assert run("sleep 4322 & echo done") == (0, "done\n")
    assert time.monotonic() - started < 10


def test_endless_output_is_kept_at_both_ends() -> None:
    done = run("echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert done.status == 0
    assert done.output.startswith("first\n")
    assert done.output.endswith("\nlast\n")
    assert "bytes left out]" in done.output
    assert len(done.output) < 1.1 * shell.KEPT


def test_a_flood_ends_in_time() -> None:
    done = run("yes", 0.5)
    assert done.status is None
    assert len(done.output) < 1.1 * shell.KEPT


def test_input_is_empty() -> None:
    assert run("cat; echo over") == (0, "over\n")


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert "\ufffd" in run("printf '\\xff\\xfe'").output


@pytest.mark.parametrize(("most", "text"), [(10, "short"), (4, "long text")])
def test_cut(most: int, text: str) -> None:
    said = shell.cut(text, most)
    assert said == (text if len(text) <= most else "lo\n[5 characters left out]\nxt")
