"""The plain text action protocol: what it accepts, what it says to the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import leyline_agent as leyline
from leyline_agent.errors import LeylineError
from leyline_agent.signals.failed import failures
from leyline_agent.signals.stale import stale
from leyline_agent.testing import DeterministicModel
from leyline_agent.trajectory import Trajectory
from leyline_evals.solve.protocol import (
    Action,
    Call,
    FileTool,
    Malformed,
    Toolset,
    instructions,
    observed,
    parse,
    written,
)

TOOLS = Toolset(
    file=FileTool("edit", "path", "new_code"),
    named={
        "view": ("path", "start", "end"),
        "grep": ("pattern", "path"),
        "pdb": ("command",),
        "eval": (),
    },
    numbers=frozenset({"start", "end"}),
    programs=frozenset({"grep"}),
)

texts = st.text(st.characters(exclude_characters="\r", exclude_categories=("Cs",)))
fenced = st.lists(st.sampled_from(["```", "```bash", "````", "`", "x", "", "~~~"])).map("\n".join)
commands = (
    (texts | fenced).map(lambda t: t.strip("\n")).filter(lambda t: t.strip() not in ("", "submit"))
)
files = (texts | fenced).map(lambda t: t and t.rstrip("\n") + "\n")
parts = st.text("abcXYZ019_-+@.", min_size=1, max_size=8).filter(
    lambda t: t not in (".", "..", ".git")
)
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)
actions = st.one_of(
    st.just(Action("submit")),
    commands.map(lambda text: Action("command", text)),
    st.builds(Action, st.just("file"), files, paths),
)
talk = st.text(st.characters(exclude_characters="`\r", exclude_categories=("Cs",))).filter(
    lambda t: not t.lstrip().startswith("<think>")
)


@given(actions, talk, talk)
def test_an_action_is_read_back_from_between_talk(action: Action, before: str, after: str) -> None:
    assert parse(f"{before}\n{written(action)}\n{after}") == action


@given(actions, actions, talk)
def test_two_actions_are_none(first: Action, second: Action, between: str) -> None:
    with pytest.raises(Malformed, match="holds 2 actions"):
        parse("\n".join([written(first), between, written(second)]))


@given(
    st.text()
    | fenced
    | st.lists(st.sampled_from("```|bash|\n| a.py|<think>|x".split("|"))).map("".join)
)
def test_whatever_a_model_says_is_an_action_or_is_told_why_not(reply: str) -> None:
    try:
        action = parse(reply)
    except Malformed as error:
        told = error
    else:
        assert parse(written(action)) == action
        return
    what, _, example = str(told).partition("\n\n")
    assert what.startswith("Format error: ")
    assert parse(example.partition("\n\nor\n\n")[0])


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ("I would run the tests.", "no block labelled bash and no file"),
        ("", "no block labelled bash and no file"),
        ("```python\nx = 1\n```", "labelled python is no action"),
        ("```python example\nx = 1\n```", "labelled python example is no action"),
        ("```python 3.11\nx = 1\n```", "labelled python 3.11 is no action"),
        ("```\nls\n```", "labelled nothing is no action"),
        ("```sh\nls\n```", "labelled sh is no action"),
        ("```bash\nls", "opens with ```bash is not closed"),
        ("```bash\n\n```", "the command is empty"),
        ("```python /etc/passwd\n```", "'/etc/passwd' is no path"),
        ("```python ../up.py\n```", "'../up.py' is no path"),
        ("```text .git/config\n```", "'.git/config' is no path"),
        ("```python path=a.py\n```", "'path=a.py' is no path"),
        ("```a\\b.py\n```", "is no path"),
        ("<think>```bash\nls\n```", "no block labelled bash and no file"),
    ],
)
def test_malformed_replies_are_told_what_is_wrong(reply: str, told: str) -> None:
    with pytest.raises(Malformed) as raised:
        parse(reply)
    first, _, example = str(raised.value).partition("\n\n")
    assert told in first
    assert first.count(". ") == 1  # What is wrong, and what to do.
    assert example.startswith("```")


def test_a_thought_and_blocks_of_other_languages_are_talk() -> None:
    said = "<think>\n```bash\nrm -rf .\n```\n</think>\nThe bug:\n```python\nx = 1\n```\n"
    assert parse(f"{said}```bash\nls\n```") == Action("command", "ls")


def test_line_ends_of_another_system_are_read() -> None:
    assert parse("```text notes.txt\r\na\r\n```\r\n") == Action("file", "a\n", "notes.txt")


numbers = st.integers(min_value=0, max_value=999_999_999)
calls = st.one_of(
    st.just(Call("submit", {})),
    st.just(Call("eval", {})),
    commands.filter(lambda t: t.split(" ")[0] not in TOOLS.named or "\n" in t).map(
        lambda text: Call("bash", {"command": text})
    ),
    st.builds(lambda p, c: Call("edit", {"path": p, "new_code": c}), paths, files),
    st.builds(
        lambda p, a, b: Call("view", {"path": p, "start": a, "end": b}), paths, numbers, numbers
    ),
    st.builds(lambda p: Call("view", {"path": p}), st.text("ab '\"\\$", min_size=1)),
    st.builds(
        lambda p: Call("grep", {"pattern": p, "path": "a.py"}), st.text("a |.'\"$", min_size=1)
    ),
    st.just(Call("pdb", {"command": "p total, 'it''s"})),
)


@given(calls)
def test_a_call_of_a_script_is_the_text_that_makes_it(call: Call) -> None:
    assert TOOLS.call(parse(written(TOOLS.action(call)))) == call


@pytest.mark.parametrize(
    "call",
    [
        Call("edit", {"path": "a.py", "start": 1, "end": 2, "new_code": "x\n"}),
        Call("edit", {"path": "a.py", "new_code": "no newline at the end"}),
        Call("edit", {"path": "/etc/passwd", "new_code": ""}),
        Call("bash", {"command": "submit"}),
        Call("bash", {"command": "view a.py"}),
        Call("bash", {}),
        Call("unknown", {"x": 1}),
        Call("view", {"start": 3}),
    ],
)
def test_a_call_that_no_text_makes_is_an_error(call: Call) -> None:
    with pytest.raises(LeylineError):
        TOOLS.action(call)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("view a.py one", "start of view is a whole number, not 'one'"),
        ("view a.py 1 2 3", "view takes 3 arguments, not 4"),
        ("view 'a.py", "cannot be told apart"),
        ("eval now", "eval takes 0 arguments, not 1"),
        ("eval && submit", "eval is a tool, not a program: it stands alone, without &"),
        ("view a.py | head -5", r"view is a tool, not a program: .* without \|"),
        ("grep don't a.py", "cannot be told apart"),
    ],
)
def test_arguments_that_do_not_fit_are_told_with_the_usage(command: str, told: str) -> None:
    with pytest.raises(Malformed, match=told) as raised:
        TOOLS.call(Action("command", command))
    assert str(raised.value).endswith(
        ("view PATH START END\n```", "grep PATTERN PATH\n```", "eval\n```")
    )


@pytest.mark.parametrize(
    "command",
    [
        "grep -n mean calc.py",
        "grep -r mean .",
        "grep -rn mean",
        "grep mean -r",
        "grep mean a.py | head",
        "grep mean a.py>out",
        "grep mean a.py; ls",
        "grep mean $(git ls-files)",
        "grep mean a.py b.py",
        "grep mean *.py",
        "grep --include=*.py mean",
        r"grep 'mean\|sum' a.py",
        "grep mean a.py # where is it",
    ],
)
def test_ordinary_grep_is_a_command(command: str) -> None:
    assert TOOLS.call(Action("command", command)) == Call("bash", {"command": command})


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("grep mean", {"pattern": "mean"}),
        ("grep mean .", {"pattern": "mean", "path": "."}),
        ("grep 'def mean|->' calc.py", {"pattern": "def mean|->", "path": "calc.py"}),
        ('grep "a > b; c" calc.py', {"pattern": "a > b; c", "path": "calc.py"}),
        ("grep def.*mean calc.py", {"pattern": "def.*mean", "path": "calc.py"}),
    ],
)
def test_what_fits_the_tool_calls_it(command: str, arguments: dict[str, str]) -> None:
    assert TOOLS.call(Action("command", command)) == Call("grep", arguments)


def test_a_debugger_is_told_whatever_stands_behind_its_name() -> None:
    call = TOOLS.call(Action("command", "pdb p a | b; c"))
    assert call == Call("pdb", {"command": "p a | b; c"})


@pytest.mark.parametrize(
    ("label", "path"),
    [
        ("calc.py", "calc.py"),
        ("python ./calc.py", "calc.py"),
        ("src/run", "src/run"),
        ("make ./Makefile", "Makefile"),
        ("text .gitignore", ".gitignore"),
    ],
)
def test_a_file_is_named_by_a_suffix_or_a_slash(label: str, path: str) -> None:
    assert parse(f"```{label}\nx\n```") == Action("file", "x\n", path)


def test_an_example_beside_a_command_is_talk() -> None:
    said = "Like so:\n```python example\nx = 1\n```\n```bash\nls\n```"
    assert parse(said) == Action("command", "ls")


def test_files_are_refused_where_none_are_written() -> None:
    with pytest.raises(Malformed, match="files are not written here"):
        Toolset().call(Action("file", "x\n", "a.py"))
    assert "whole file" not in instructions(Toolset())


def test_the_examples_of_the_instructions_are_actions() -> None:
    told = instructions(TOOLS)
    shown = [f"```{block}```" for block in told.split("```")[1::2]]
    assert [parse(block).kind for block in shown] == ["command", "file", "submit"]
    assert "view PATH START END" in told


def test_a_long_observation_loses_its_middle() -> None:
    message = observed("a" * 60 + "b" * 60, returncode=1, max_chars=100)
    assert "[20 characters left out]" in message["content"]
    assert message["content"].count("a") - "[20 characters left out]".count("a") == 50
    assert message["content"].count("b") == 50
    assert observed("as it is")["content"] == "as it is"


def history(*steps: tuple[str, str, int]) -> list[leyline.Message]:
    messages = [
        {"role": "system", "content": instructions(TOOLS)},
        {"role": "user", "content": "Mend it."},
    ]
    for reply, text, code in steps:
        messages += [{"role": "assistant", "content": reply}, observed(text, code)]
    return messages


def test_policies_edit_observations_and_nothing_else() -> None:
    model = DeterministicModel("```bash\nsubmit\n```")
    session = leyline.Session(policies="truncate_older_than:n=1,max_chars=40", observations="user")
    run = history(*[(written(Action("command", f"cat {n}")), "line\n" * 50, 0) for n in range(3)])
    turn = session.begin(run)
    turn.finish(model.complete(turn.request))
    sent = model.requests[0]["messages"]
    changed = [place for place, message in enumerate(sent) if message != run[place]]
    assert changed == [3, 5]
    assert len(sent) == len(run)


def test_signals_read_the_history() -> None:
    run = history(
        ("```bash\ncat calc.py\n```", "def mean(xs): ...", 0),
        ("```bash\npytest -q\n```", "1 failed", 1),
        (written(Action("file", "def mean(xs):\n    return 2\n", "calc.py")), "written", 0),
    )
    refusal = Malformed("your reply holds 2 actions").message
    asked = {"role": "assistant", "content": "?"}
    trajectory = Trajectory([*run, asked, refusal], observations="user")
    kinds = {found.index: found.kind for found in failures(trajectory)}
    assert kinds == {5: "exit_code", 9: "malformed_call"}
    assert [found.result.index for found in stale(trajectory)] == [3]
