from __future__ import annotations

from collections.abc import Callable

import pytest

from leyline_agent.edit import Edit
from leyline_agent.signals.effects import BUILTIN, ToolEffects
from leyline_agent.signals.stale import stale
from leyline_agent.signals.stub import stub
from leyline_agent.trajectory import Trajectory

Run = Callable[..., Trajectory]


def seen(trajectory: Trajectory) -> list[tuple[int, str, int, str]]:
    """(index, kind, superseded by, path) of each stale result; result k stands at 2k + 2."""
    return [(s.result.index, s.kind, s.superseded_by, s.path) for s in stale(trajectory)]


# --- what supersedes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        "sed -i 's/a/b/' /r/a.py",
        "echo x > /r/a.py",
        "cat > /r/a.py <<'E'\nx\nE",
        "cp /r/a.py.bak /r/a.py",
        "rm /r/a.py",
        "rm -rf /r",
        "git checkout -- /r/a.py",
        "python - <<'E'\nopen('/r/a.py', 'w')\nE",
        "cat > /fix.py <<'E'\nopen('/r/a.py', 'w')\nE\npython /fix.py",
    ],
)
def test_read_then_edited(shell: Run, write: str) -> None:
    trajectory = shell(("cat /r/a.py", "old"), (write, ""))
    assert seen(trajectory) == [(2, "edited", 4, "/r/a.py")]


def test_a_script_writes_when_it_runs(shell: Run) -> None:
    script = "cat > /fix.py <<'E'\nopen('/r/a.py', 'w')\nE"
    trajectory = shell((script, ""), ("cat /r/a.py", "old"), ("python /fix.py", "done"))
    assert seen(trajectory) == [(4, "edited", 6, "/r/a.py")]


@pytest.mark.parametrize(
    "again", ["cat /r/a.py", "cat -n /r/a.py", "cat /r/a.py && ls", "sed -n '1,$p' /r/a.py"]
)
def test_read_again(shell: Run, again: str) -> None:
    assert seen(shell(("cat /r/a.py", "x"), (again, "x")))[0] == (2, "reread", 4, "/r/a.py")


def test_a_part_never_supersedes_the_whole(shell: Run) -> None:
    assert seen(shell(("cat /r/a.py", "x"), ("sed -n '1,999p' /r/a.py", "x"))) == []


def test_a_part_supersedes_an_equal_or_smaller_part(shell: Run) -> None:
    trajectory = shell(
        ("sed -n '10,20p' /r/a.py", "x"),
        ("sed -n '50,60p' /r/a.py", "x"),
        ("sed -n '10,30p' /r/a.py", "x"),
        ("sed -n '11,29p' /r/a.py", "x"),
    )
    assert seen(trajectory) == [(2, "reread", 6, "/r/a.py")]


def test_a_clipped_output_does_not_supersede(shell: Run) -> None:
    clipped = "head\n<elided_chars>\n305 characters elided\n</elided_chars>\ntail"
    assert seen(shell(("cat /r/a.py", "x"), ("cat /r/a.py", clipped))) == []
    assert seen(shell(("sed -n 5p /r/a.py", "x"), ("cat /r/a.py", clipped))) == []
    assert seen(shell(("cat /r/a.py", clipped), ("cat /r/a.py", "x")))


@pytest.mark.parametrize(
    "command",
    ["python a.py", "pytest -q | tail -5", "ls -la", "grep -r x .", "git diff", "(cd a; ls)"],
)
def test_run_again(shell: Run, command: str) -> None:
    assert seen(shell((command, "old"), ("ls /", ""), (command, "new"))) == [(2, "rerun", 6, "")]


def test_run_again_showing_less(shell: Run) -> None:
    assert seen(shell(("pytest", "x"), ("pytest | tail -5", "x"))) == []
    assert seen(shell(("pytest | tail -5", "x"), ("pytest | tail -50", "x")))
    assert seen(shell(("pytest | tail -5", "x"), ("pytest | head -50", "x"))) == []


def test_a_run_that_fails_is_still_the_newest(shell: Run) -> None:
    assert seen(shell(("python a.py", "ok"), ("python a.py", "no", 1))) == [(2, "rerun", 4, "")]


def test_every_piece_must_be_stale(shell: Run) -> None:
    both = ("cat /r/a.py /r/b.py", "x")
    assert seen(shell(both, ("cat /r/a.py", "x"))) == []
    trajectory = shell(both, ("cat /r/a.py", "x"), ("rm /r/b.py", ""))
    assert seen(trajectory) == [(2, "edited", 6, "/r/b.py")]


def test_a_failing_line_still_shows_what_it_read(shell: Run) -> None:
    line = "cat /r/a.py; python x.py"
    trajectory = shell(("cat /r/a.py", "x"), (line, "x\nboom", 1), ("python x.py", "ok"))
    assert seen(trajectory) == []
    assert [s[0] for s in seen(shell((line, "x\nboom", 1), (line, "x\nok")))] == [2]


def test_the_first_event_is_told(shell: Run) -> None:
    trajectory = shell(("cat /r/a.py", "x"), ("rm /r/a.py", ""), ("cat /r/a.py", "x"))
    assert seen(trajectory) == [(2, "edited", 4, "/r/a.py")]


# --- what does not -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "text", "code"),
    [
        ("cat /r/a.py", "cat: /r/a.py: No such file or directory", 1),
        ("sed -i 's/a/b/' /r/a.py", "sed: unknown command", 1),
        ("python /unknown.py", "done", 0),
        ("cat /r/a.pyc", "x", 0),
        ("rm /r/a.py.bak", "", 0),
        ("echo x > /r/b.py", "", 0),
        ("grep x /r/a.py", "x", 0),
        ("cat /r/a.py | head -5", "x", 0),
    ],
)
def test_nothing_happened_to_the_file(shell: Run, command: str, text: str, code: int) -> None:
    assert seen(shell(("cat /r/a.py", "x"), (command, text, code))) == []


def test_writes_before_a_failing_command_did_happen(shell: Run) -> None:
    line = "cat > /r/a.py <<'E'\nx\nE\npython /r/a.py"
    assert seen(shell(("cat /r/a.py", "old"), (line, "boom", 1))) == [(2, "edited", 4, "/r/a.py")]


def test_a_timeout_shows_nothing(run: Run) -> None:
    waited = "<exception>'make' timed out after 60 seconds</exception>\n<returncode>-1</returncode>"
    trajectory = run(("bash", {"command": "make"}, "x"), ("bash", {"command": "make"}, waited))
    assert seen(trajectory) == []


def test_a_malformed_call_did_nothing(run: Run) -> None:
    view = {"command": "view", "path": "/a.py"}
    refused = "Parameter `path` is required for command: str_replace."
    edit = {"command": "str_replace", "path": "/a.py"}
    trajectory = run(("str_replace_editor", view, "x"), ("str_replace_editor", edit, refused))
    assert seen(trajectory) == []


# --- where ---------------------------------------------------------------------------------------


def test_a_fresh_shell_starts_where_the_agent_keeps_going(shell: Run) -> None:
    trajectory = shell(
        ("cat src/a.py", "x"), ("cd /r && ls", "src"), ("cd /r && sed -i s/a/b/ src/a.py", "")
    )
    assert seen(trajectory) == [(2, "edited", 6, "/r/src/a.py")]


def test_a_fresh_shell_forgets_where_it_went(shell: Run) -> None:
    trajectory = shell(
        ("cd /r && cat a.py", "x"), ("cd /r/sub && ls", ""), ("cd /r && ls", ""), ("rm a.py", "")
    )
    assert (2, "edited", 8, "/r/a.py") in seen(trajectory)


def test_a_lasting_shell_stays_where_it_went(run: Run) -> None:
    commands = ["cd /r", "cat a.py", "cd sub", "rm a.py", "rm ../a.py"]
    trajectory = run(*(("execute_bash", {"command": c}, "x") for c in commands))
    assert seen(trajectory) == [(4, "edited", 10, "/r/a.py")]


@pytest.mark.parametrize(
    "prompt",
    [
        "\n(Open file: n/a)\n(Current directory: /r)\nbash-$",
        "\nroot@box:/r # \n[Command finished with exit code 0]",
        "\n[Current working directory: /r]\n[Command finished with exit code 0]",
    ],
)
def test_a_prompt_tells_the_directory(run: Run, prompt: str) -> None:
    trajectory = run(
        ("bash", {"command": "make"}, f"x{prompt}"),
        ("bash", {"command": "cat a.py"}, f"x{prompt}"),
        ("str_replace_editor", {"command": "create", "path": "/r/a.py"}, "created"),
    )
    assert (4, "edited", 6, "/r/a.py") in seen(trajectory)


def test_an_unknown_directory_matches_only_itself(run: Run) -> None:
    trajectory = run(
        ("bash", {"command": "cat a.py"}, "x"),
        ("bash", {"command": "rm /r/a.py"}, ""),
        ("bash", {"command": "rm ./a.py"}, ""),
    )
    assert seen(trajectory) == [(2, "edited", 6, "a.py")]


# --- other tools ---------------------------------------------------------------------------------


def test_editors(run: Run) -> None:
    def editor(output: str, **arguments: object) -> tuple[str, dict[str, object], str]:
        return "str_replace_editor", {"path": "/a.py", **arguments}, output

    trajectory = run(
        editor("1\tx", command="view", view_range=[1, 9]),
        editor("The file /a.py has been edited. Here is a snippet", command="str_replace"),
        editor("ERROR:\nNo replacement was performed", command="str_replace"),
        editor("1\ty", command="view"),
    )
    assert seen(trajectory) == [(2, "edited", 4, "/a.py"), (4, "reread", 8, "/a.py")]


def test_interactive_tools_never_repeat(run: Run) -> None:
    step = ("pdb", {"command": "n"}, "x")
    assert seen(run(step, step)) == []


def test_own_tools_are_declared(run: Run) -> None:
    page = ("open_page", {"url": "/a"}, "x")
    assert seen(run(page, page)) == []
    own = {**BUILTIN, "open_page": ToolEffects(reads=("url",))}
    assert [s.kind for s in stale(run(page, page), own)] == ["reread"]


def test_plain_text_harnesses() -> None:
    texts = ["```\ncat /r/a.py\n```", "old", "```\nrm /r/a.py\n```", ""]
    roles = ["assistant", "user", "assistant", "user"]
    messages = [{"role": "user", "content": "task"}] + [
        {"role": role, "content": text} for role, text in zip(roles, texts, strict=True)
    ]
    trajectory = Trajectory(messages=messages, observations="user")
    assert seen(trajectory) == [(2, "edited", 4, "/r/a.py")]


# --- on an edited view ---------------------------------------------------------------------------


def test_a_copy_that_is_gone_supersedes_nothing(shell: Run) -> None:
    trajectory = shell(("cat /r/a.py", "x"), ("cat /r/a.py", "x"))
    for gone in (stub("aged out"), "my own placeholder"):
        view = trajectory.edited([trajectory.tool_results[1].replace(gone)])
        assert seen(view) == []


def test_an_edit_counts_though_its_output_is_gone(shell: Run) -> None:
    trajectory = shell(("cat /r/a.py", "x"), ("sed -i s/a/b/ /r/a.py", ""), ("ls", ""))
    view = trajectory.edited([trajectory.tool_results[1].replace(stub("aged out"))])
    assert seen(view) == [(2, "edited", 4, "/r/a.py")]


def test_a_failed_edit_does_not_count_when_its_output_is_gone(shell: Run) -> None:
    trajectory = shell(("cat /r/a.py", "x"), ("sed -i s/a/b /r/a.py", "sed: unterminated", 1))
    view = trajectory.edited([trajectory.tool_results[1].replace(stub("failed"))])
    assert seen(view) == []
    assert seen(Trajectory(messages=view.messages)) == []


def test_a_stub_is_not_stale(shell: Run) -> None:
    trajectory = shell(("cat /r/a.py", "x"), ("rm /r/a.py", ""))
    view = trajectory.edited([trajectory.tool_results[0].replace(stub("stale"))])
    assert seen(view) == []


def test_places_are_those_of_the_view(shell: Run) -> None:
    trajectory = shell(("ls", ""), ("cat /r/a.py", "x"), ("rm /r/a.py", ""))
    assert seen(trajectory.edited([Edit(1, 3)])) == [(2, "edited", 4, "/r/a.py")]
