from __future__ import annotations

import pytest

from leyline_agent.signals.commands import pipelines
from leyline_agent.signals.outputs import WHOLE, Limit, Lines, Piece, Read, Run
from leyline_agent.signals.reading import pieces, resolve


def shown(text: str, directory: str = "/r") -> list[Piece]:
    (pipeline,) = pipelines(text) or ()
    return pieces(pipeline.commands, directory)


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [
        ("./a/../b.py", "/r", "/r/b.py"),
        ("/x/b.py", "/r", "/x/b.py"),
        ("./b.py", "", "b.py"),
        ("~/b.py", "/r", "~/b.py"),
    ],
)
def test_paths_are_seen_from_the_working_directory(
    path: str, directory: str, expected: str
) -> None:
    assert resolve(path, directory) == expected


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cat a.py", WHOLE),
        ("cat -n a.py", WHOLE),
        ("cat < a.py", WHOLE),
        ("less a.py", WHOLE),
        ("nl -ba a.py", WHOLE),
        ("cat a.py | cat -A", WHOLE),
        ("cat a.py | tee copy", WHOLE),
        ("head a.py", Lines(1, 11)),
        ("head -20 a.py", Lines(1, 21)),
        ("head -n 20 a.py", Lines(1, 21)),
        ("head --lines=20 a.py", Lines(1, 21)),
        ("tail -n +20 a.py", Lines(20)),
        ("sed -n '5,9p' a.py", Lines(5, 10)),
        ("sed -n 5p a.py", Lines(5, 6)),
        ("sed -n '5,$p' a.py", Lines(5)),
        ("sed -n '5,+2p' a.py", Lines(5, 8)),
        ("sed -ne '5,9p' a.py", Lines(5, 10)),
        ("sed -n '9,5p' a.py", Lines(9, 10)),
        ("cat a.py | head -50", Lines(1, 51)),
        ("cat a.py | sed -n '5,9p'", Lines(5, 10)),
        ("head -500 a.py | tail -n +100", Lines(100, 501)),
        ("sed -n '100,200p' a.py | head -20", Lines(100, 120)),
        ("sed -n '100,110p' a.py | head -20", Lines(100, 111)),
        ("nl -ba a.py | sed -n '5,9p'", Lines(5, 10)),
    ],
)
def test_lines_of_a_file(text: str, lines: Lines) -> None:
    assert shown(text) == [Read("/r/a.py", lines)]


def test_several_files_and_several_ranges() -> None:
    assert shown("cat a.py b.py") == [Read("/r/a.py"), Read("/r/b.py")]
    assert shown("sed -n '1,2p;5,6p' a.py") == [
        Read("/r/a.py", Lines(1, 3)),
        Read("/r/a.py", Lines(5, 7)),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "tail -20 a.py",
        "tail -n 20 a.py",
        "head -c 100 a.py",
        "head -n -5 a.py",
        "sed -n '/def f/,/^def/p' a.py",
        "sed 's/a/b/' a.py",
        "sed 10q a.py",
        "cat a.py | tail -20",
        "tail -20 a.py | head -5",
    ],
)
def test_a_part_nobody_can_tell(text: str) -> None:
    (piece,) = shown(text)
    assert isinstance(piece, Read)
    assert (piece.path, piece.lines) == ("/r/a.py", None)
    assert piece.key


def test_the_same_part_has_the_same_key() -> None:
    assert shown("tail -20 a.py") == shown("tail -20 a.py")
    assert shown("tail -20 a.py") != shown("tail -30 a.py")
    assert shown("cat a.py | tail -20") != shown("cat a.py | tail -30")


@pytest.mark.parametrize(
    "text",
    ["cat *.py", "cat $FILE", "cat a.py | grep x", "grep -n x a.py", "wc -l a.py", "python a.py"],
)
def test_anything_else_is_an_output_of_its_own(text: str) -> None:
    (piece,) = shown(text)
    assert isinstance(piece, Run)


def test_the_limit_is_not_part_of_what_was_run() -> None:
    whole, tail = shown("pytest -q 2>&1"), shown("pytest -q | tail -5")
    assert isinstance(whole[0], Run)
    assert tail == [Run(whole[0].key, Limit("tail", 5))]
    assert shown("pytest -q | cat") == whole
    assert shown("pytest -q | tail -c 5") != whole


def test_a_run_is_told_by_directory_input_and_script() -> None:
    assert shown("python a.py", "/r") != shown("python a.py", "/s")
    assert shown("python - <<E\n1\nE") != shown("python - <<E\n2\nE")
    assert shown("python - < a") != shown("python - < b")


@pytest.mark.parametrize("text", ["echo hi", "mkdir -p x", "sed -i s/a/b/ a.py", "rm a", "cd x"])
def test_outputs_nobody_comes_back_to(text: str) -> None:
    assert shown(text) == []
