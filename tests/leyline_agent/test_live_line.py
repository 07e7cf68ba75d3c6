"""The line on a real terminal: a pseudo-terminal whose output an emulator draws."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import textwrap
import threading

import pyte
import pytest
from recalling import Harness, recalls, runs

from leyline_agent import LiveLine, Session, live
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

ROWS, COLUMNS = 8, 76
EPISODE = """
import sys
import leyline_agent as leyline
from leyline_agent.testing import DeterministicModel, MockAdapter, tool_call

def run(turns, session, each=lambda n: None):
    messages = [{"role": "user", "content": "Does everything pass?"}]
    for number in range(turns):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        reply = session.history[-1]
        call = reply["tool_calls"][0]["id"]
        messages += [reply, {"role": "tool", "tool_call_id": call, "content": "12 passed " * 40}]
        each(number)

def session(**options):
    model = DeterministicModel(*[tool_call("bash", command="make test")] * 20)
    policies = "truncate_older_than:n=1,max_chars=40"
    return leyline.Session(policies, MockAdapter(model), **options)
"""


class Shown:
    """What a program left on a terminal: the screen's rows, and all it wrote."""

    def __init__(self, written, rows, columns):
        screen = pyte.Screen(columns, rows)
        pyte.ByteStream(screen).feed(written)
        self.rows = [row.rstrip() for row in screen.display]
        self.written = written
        self.margins = screen.margins


def shown(code, rows=ROWS, columns=COLUMNS, drawn_rows=None, stderr_only=False, **environment):
    """Run `code` on a terminal of its own; `drawn_rows` where it grows."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    plain = {key: value for key, value in os.environ.items() if key not in ("CI", "LEYLINE_LIVE")}
    process = subprocess.Popen(
        [sys.executable, "-c", EPISODE + textwrap.dedent(code)],
        stdin=slave, stdout=subprocess.PIPE if stderr_only else slave, stderr=slave,
        env={**plain, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(slave)
    written = b""
    while True:
        try:
            read = os.read(master, 65536)
        except OSError:  # The other end is closed.
            break
        written += read
    os.close(master)
    out = process.stdout.read() if process.stdout else b""
    if process.stdout:
        process.stdout.close()
    assert process.wait() == 0, written
    made = Shown(written, drawn_rows or rows, columns)
    made.out = out
    return made


STOP = "sys.stdout.flush(); import os; os._exit(0)  # as it looks while the program runs"


def test_the_line_stands_below_what_the_program_prints():
    found = shown(f"""
        print("before")
        with leyline.live():
            run(9, session(), lambda n: print("turn", n))
            {STOP}
    """)
    assert found.rows[-1].startswith(" leyline  9 turns · view ")
    assert "· reused " in found.rows[-1]
    assert found.rows[:-2] == [f"turn {n}" for n in range(3, 9)]


def test_words_without_a_line_end_stay_together():
    found = shown(f"""
        print("The answer", end="", flush=True)
        with leyline.live():
            run(3, session(), lambda n: print(" is", n, end="", flush=True))
            print(".", flush=True)
            {STOP}
    """)
    assert "The answer is 0 is 1 is 2." in found.rows


def test_a_full_screen_moves_up_to_make_room():
    found = shown(f"""
        for n in range(20):
            print("line", n)
        print("last", end="", flush=True)
        with leyline.live():
            run(1, session())
            {STOP}
    """)
    assert found.rows[-2] == "last"
    assert found.rows[-3] == "line 19"
    assert found.rows[-1].startswith(" leyline  1 turn")


def test_when_it_is_closed_the_screen_is_as_before():
    found = shown("""
        with leyline.live():
            run(3, session())
        print("after")
    """)
    assert found.rows == ["after"] + [""] * (ROWS - 1)
    assert found.margins is None


def test_an_error_in_the_program_gives_the_screen_back():
    found = shown("""
        try:
            with leyline.live():
                run(3, session())
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert found.rows == ["stopped"] + [""] * (ROWS - 1)


def test_the_environment_turns_it_on_for_the_whole_process():
    found = shown("run(3, session())", LEYLINE_LIVE="1")
    assert b"3 turns" in found.written
    assert found.margins is None
    assert found.rows == [""] * ROWS


def test_several_sessions_in_threads_share_the_line():
    found = shown(f"""
        import threading
        with leyline.live():
            threads = [threading.Thread(target=run, args=(5, session())) for _ in range(4)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            {STOP}
    """)
    assert found.rows[-1].startswith(" leyline  20 turns · 4 sessions · view ")


def test_a_narrow_terminal_cuts_it():
    found = shown(f"with leyline.live(): run(3, session()); {STOP}", columns=30)
    assert found.rows[-1].startswith(" leyline  3 turns · view")
    assert found.rows[-1].endswith("…")
    assert len(found.rows[-1]) < 30


def test_it_follows_the_terminals_size():
    found = shown(
        f"""
        import fcntl, struct, termios
        with leyline.live():
            run(1, session())
            print("between")
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 12, {COLUMNS}, 0, 0))
            run(2, session())
            {STOP}
        """,
        drawn_rows=12,
    )
    assert found.rows[-1].startswith(" leyline  3 turns")
    assert [row for row in found.rows if row] == ["between", found.rows[-1]]


@pytest.mark.parametrize(
    "options", [{"CI": "1"}, {"TERM": "dumb"}, {"rows": 3}], ids=["CI", "dumb", "low"]
)
def test_it_is_silent_where_it_has_no_place(options):
    found = shown("with leyline.live(): run(3, session())", **options)
    assert found.written == b""


def test_a_pipe_gets_what_the_program_prints_and_the_terminal_the_line():
    found = shown("with leyline.live(): run(3, session(), lambda n: print(n))", stderr_only=True)
    assert found.out == b"0\n1\n2\n"
    assert b"3 turns" in found.written


def test_where_nobody_looks_nothing_is_imported_or_written():
    code = """
        with leyline.live(): run(3, session())
        assert "rich" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", EPISODE + textwrap.dedent(code)], capture_output=True, check=True
    )
    assert done.stdout + done.stderr == b""


def episode(line, turns=3, **options):
    model = DeterministicModel(*[tool_call("bash", command="make test")] * turns)
    session = Session(
        "truncate_older_than:n=1,max_chars=40", MockAdapter(model), observers=[line], **options
    )
    messages = [{"role": "user", "content": "Does everything pass?"}]
    for _ in range(turns):
        turn = session.begin(messages)
        turn.finish(session.adapter.complete(turn.request))
        reply = session.history[-1]
        call = reply["tool_calls"][0]["id"]
        messages += [reply, {"role": "tool", "tool_call_id": call, "content": "passed " * 90}]
    return session


def test_the_figures_are_the_receipts():
    line = LiveLine(io.StringIO())
    session = episode(line, turns=4)
    session.begin(session.history).fail(TimeoutError())
    session.begin(session.history).fail()
    stats, tally = session.stats(), line.tally
    assert (tally.turns, tally.failed, tally.prompt) == (4, 1, stats.prompt)
    assert tally.reused == stats.reused_exact + stats.reused_spliced
    assert dict(tally.edits) == {"truncate_older_than": stats.edits}
    assert tally.view == session.receipts[-1].prompt < tally.history
    assert list(tally.parts()) == [
        "4 turns, 1 failed",
        f"view {tally.view:,} of {tally.history:,} tokens",
        f"saved {tally.saved:,}",
        f"reused {stats.hit_rate:.0%}",
        f"{stats.edits} edits: truncate_older_than {stats.edits}",
    ]


def test_without_edits_nothing_is_saved():
    line = LiveLine(io.StringIO())
    episode(line, turns=1)
    assert (line.tally.saved, line.tally.history) == (0, line.tally.view)


def test_sessions_of_several_threads_are_counted_once():
    line = LiveLine(io.StringIO())
    threads = [threading.Thread(target=episode, args=[line]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (line.tally.turns, len(line.tally.sessions)) == (24, 8)


def test_edits_ahead_are_no_turns():
    line = LiveLine(io.StringIO())
    policy = "truncate_older_than:n=2,max_chars=40"
    agent = Harness(*[runs()] * 6, policies=policy, timing="auto", recall=False, observers=[line])
    agent.turns(6)
    for thread in threading.enumerate():
        if thread.name == "leyline-edit-ahead":
            thread.join()
    stats = agent.session.stats()
    assert stats.ahead
    assert (line.tally.turns, line.tally.prompt) == (stats.turns, stats.prompt)
    assert line.tally.edits.total() == stats.edits


def test_live_watches_only_while_it_is_entered():
    session = Session()
    with live(io.StringIO()) as line:
        session.begin([{"role": "user", "content": "hi"}]).finish("ok")
    session.begin([{"role": "user", "content": "hi"}]).finish("ok")
    assert line.tally.turns == 1


def test_recalls_are_counted_and_are_no_turns():
    line = LiveLine(io.StringIO())
    agent = Harness(runs(), runs(), recalls(0), runs(), "done", observers=[line])
    agent.turns(4)
    stats = agent.session.stats()
    assert (line.tally.turns, line.tally.recalls) == (stats.turns, stats.recalls) == (4, 1)
    assert list(line.tally.parts())[-1] == "1 recall"
