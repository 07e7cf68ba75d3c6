from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline_agent.signals.shell import Command, Pipeline, is_literal, parse


def only(text: str) -> Command:
    (pipeline,) = parse(text) or ()
    (command,) = pipeline.commands
    return command


def test_words_lose_their_quotes() -> None:
    assert only("""grep -n 'a b' "c \\"d\\"" e\\ f""").words == (
        "grep",
        "-n",
        "a b",
        'c "d"',
        "e f",
    )


def test_a_program_is_named_without_its_folder() -> None:
    assert only("/usr/bin/python3 -V").program == "python3"
    assert only("> out").program == ""


def test_pipes_and_lists() -> None:
    parsed = parse("cd /x && cat a | head -5; echo done || true\nls &")
    assert parsed is not None
    shape = [([c.program for c in p.commands], p.joiner) for p in parsed]
    assert shape == [
        (["cd"], "&&"),
        (["cat", "head"], ";"),
        (["echo"], "||"),
        (["true"], ";"),
        (["ls"], ""),
    ]


def test_operators_in_quotes_are_text() -> None:
    assert only("grep 'a && b | c > d' f").words[1] == "a && b | c > d"


def test_redirections() -> None:
    command = only("make < in > out 2> err")
    assert (command.words, command.source) == (("make",), "in")
    assert (command.targets, command.silent) == (("out", "err"), True)


@pytest.mark.parametrize("text", ["make 2>&1", "make 2>/dev/null", "make 2>&-"])
def test_joined_and_discarded_streams_write_no_file(text: str) -> None:
    command = only(text)
    assert (command.words, command.targets, command.silent) == (("make",), (), False)


def test_discarded_output_is_silent() -> None:
    assert only("make > /dev/null 2>&1").silent
    assert only("make &> log").silent


def test_a_heredoc_belongs_to_the_command_it_stands_at() -> None:
    parsed = parse("cat > a.py << 'EOF' && python a.py\nx = 1 | 2\nEOF\necho done")
    assert parsed is not None
    cat, python, echo = (pipeline.commands[0] for pipeline in parsed)
    assert (cat.heredoc, cat.targets) == ("x = 1 | 2\n", ("a.py",))
    assert (python.words, python.heredoc) == (("python", "a.py"), None)
    assert echo.words == ("echo", "done")


def test_two_heredocs_on_one_line() -> None:
    parsed = parse("cat <<A; cat <<-'B'\na\nA\n\tb\n\tB\n")
    assert parsed is not None
    assert [p.commands[0].heredoc for p in parsed] == ["a\n", "\tb\n"]


def test_an_unclosed_heredoc_takes_the_rest() -> None:
    assert only("cat <<EOF\nnever closed").heredoc == "never closed"


def test_a_herestring_is_input() -> None:
    assert only("python <<< 'print(1)'").heredoc == "print(1)"


def test_comments_and_assignments_are_left_out() -> None:
    assert only("# look\nFOO=1 BAR='b c' python a.py  # run").words == ("python", "a.py")
    assert only("sed s#a#b# f").words == ("sed", "s#a#b#", "f")


@pytest.mark.parametrize(
    "text",
    [
        "for f in *; do cat $f; done",
        "if true; then ls; fi",
        "(cd x && ls)",
        "f() { ls; }",
        "{ ls; }",
        "echo 'unbalanced",
        'echo "unbalanced',
        "echo `unbalanced",
        "while read x; do :; done < f",
    ],
)
def test_more_than_a_list_of_pipelines_is_not_understood(text: str) -> None:
    assert parse(text) is None


def test_nothing_is_nothing() -> None:
    assert parse("  \n # only a comment\n") == ()


@pytest.mark.parametrize("word", ["$HOME/a", "`pwd`/a", "*.py", "a?", "a[0]", "{a,b}", "-", ""])
def test_words_that_stand_for_other_words(word: str) -> None:
    assert not is_literal(word)


def test_a_literal_word() -> None:
    assert is_literal("src/a-b_c.py")


@given(st.lists(st.text(st.characters(exclude_characters="\x00'"), min_size=1), min_size=1))
def test_single_quoted_words_come_back_whole(words: list[str]) -> None:
    text = " ".join(["run", *(f"'{word}'" for word in words)])
    assert parse(text) == (Pipeline((Command(("run", *words)),)),)


@given(st.text(alphabet="ab '\"\\|&;<>()$`\n#E{}0", max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    parsed = parse(text)
    assert parsed is None or all(pipeline.commands for pipeline in parsed)
