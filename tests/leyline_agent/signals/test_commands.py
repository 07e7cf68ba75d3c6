from __future__ import annotations

import pytest

from leyline_agent.signals.commands import pipelines, shell_effects
from leyline_agent.signals.outputs import Lines, Read, Run


@pytest.mark.parametrize(
    ("text", "writes"),
    [
        ("echo x > a.py", {"/r/a.py"}),
        ("echo x >> a.py", {"/r/a.py"}),
        ("cat > a.py << 'EOF'\nx\nEOF", {"/r/a.py"}),
        ("make | tee log", {"/r/log"}),
        ("sed -i 's/a/b/' a.py b.py", {"/r/a.py", "/r/b.py"}),
        ("sed -i.bak -e 's/a/b/' a.py", {"/r/a.py"}),
        ("sed --in-place 's/a/b/' a.py", {"/r/a.py"}),
        ("perl -pi -e 's/a/b/' a.py", {"/r/a.py"}),
        ("rm -rf build", {"/r/build"}),
        ("cp a.py b.py", {"/r/b.py", "/r/b.py/a.py"}),
        ("mv a.py old/", {"/r/a.py", "/r/old", "/r/old/a.py"}),
        ("git checkout -- a.py", {"/r/a.py"}),
        ("git checkout HEAD~1 -- a.py b", {"/r/a.py", "/r/b"}),
        ("git checkout src/a.py", {"/r/src/a.py"}),
        ("git restore --staged a.py", {"/r/a.py"}),
        ("git rm a.py", {"/r/a.py"}),
        ("patch a.py < fix.diff", {"/r/a.py"}),
        ("black a.py", {"/r/a.py"}),
        ("python -c \"open('a.py', 'w')\"", {"/r/a.py"}),
        ("python3 - <<'E'\nopen('a.py', 'w')\nE", {"/r/a.py"}),
        ("git apply <<'E'\n--- a/x.py\n+++ b/x.py\nE", {"/r/x.py"}),
        ("sudo timeout -k 5 30s tee log", {"/r/log"}),
        ("cd sub && rm a.py", {"/r/sub/a.py"}),
        ("cd /s; rm a.py", {"/s/a.py"}),
    ],
)
def test_what_a_command_writes(text: str, writes: set[str]) -> None:
    assert set(shell_effects(text, "/r").writes) == writes


@pytest.mark.parametrize(
    "text",
    [
        "cat a.py",
        "sed -n 1,5p a.py",
        "grep -i x a.py",
        "make 2>&1 > /dev/null",
        "git checkout main",
        "git checkout -b fix",
        "git checkout .",
        "git stash",
        "git diff a.py",
        "python a.py",
        "python -m pytest a.py",
        "rm *.pyc",
        "echo x > $OUT",
        "pip install -e .",
        "find . -name '*.py' | xargs sed -i s/a/b/",
    ],
)
def test_what_is_not_known_to_write(text: str) -> None:
    assert shell_effects(text, "/r").writes == ()


def test_every_part_of_a_line_shows_something() -> None:
    effects = shell_effects("cd sub && cat a.py && echo --- && sed -n 1,5p b.py; make", "/r")
    assert effects.shows[:2] == (Read("/r/sub/a.py"), Read("/r/sub/b.py", Lines(1, 6)))
    assert isinstance(effects.shows[2], Run)
    assert effects.directory == "/r/sub"


def test_a_file_on_the_way_is_no_output() -> None:
    assert shell_effects("git diff > patch.txt", "/r").shows == ()


def test_writes_before_the_last_command_are_early() -> None:
    effects = shell_effects("rm a.py && rm b.py", "/r")
    assert effects.early_writes == ("/r/a.py",)
    assert effects.writes == ("/r/a.py", "/r/b.py")


def test_a_script_is_remembered_with_what_it_writes() -> None:
    effects = shell_effects("cat > fix.py <<'E'\nopen('a.py', 'w')\nE\npython -u fix.py x", "/r")
    assert effects.scripts == (("/r/fix.py", ("a.py",)),)
    assert effects.runs == (("/r/fix.py", "/r"),)


@pytest.mark.parametrize("text", ["git apply fix.diff", "patch -p1 < fix.diff"])
def test_a_patch_is_run_as_well(text: str) -> None:
    assert shell_effects(text, "/r").runs == (("/r/fix.diff", "/r"),)


@pytest.mark.parametrize(
    "text", ["for f in a b; do rm $f; done", "cd $HOME && rm a", "cd -; rm a", "pushd x; rm a"]
)
def test_what_is_not_understood_can_only_be_run_again(text: str) -> None:
    effects = shell_effects(text, "/r")
    assert effects.shows == (Run(("shell", "/r", text)),)
    assert (effects.writes, effects.directory) == ((), "/r")


def test_cd_alone_goes_home() -> None:
    assert shell_effects("cd", "/r").directory == "~"


def test_an_unknown_directory_keeps_paths_relative() -> None:
    assert shell_effects("cat ./a.py").shows == (Read("a.py"),)


@pytest.mark.parametrize(
    "text", ["sudo -E make", "time make", "timeout 60 make", "env A=1 make", "nice nohup make"]
)
def test_prefixes_are_taken_off(text: str) -> None:
    (pipeline,) = pipelines(text) or ()
    assert pipeline.commands[0].words == ("make",)
