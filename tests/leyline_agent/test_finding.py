"""Policies of one's own by their place: in a module or in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from leyline_agent import PolicyError, Session
from leyline_agent.cli import main
from leyline_agent.finding import split_name
from leyline_agent.policy import Pipeline, parse

MINE = """
from __future__ import annotations

from collections.abc import Iterator

from leyline_agent import Edit, Policy, Trajectory, policy, transform


class Mine(Policy):
    n: int = 1
    words: list[str] = []

    def edits(self, trajectory: Trajectory) -> Iterator[Edit]:
        for result in trajectory.tool_results[: -self.n]:
            if result.content != "gone":
                yield result.replace("gone")


@policy
def made(trajectory):
    return []


@transform
def turned(messages, turn):
    return messages


def plain(trajectory):
    return []


class Other:
    pass


NUMBER = 3
"""

RUN = [
    {"role": "user", "content": "task"},
    {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "a", "content": "text " * 99},
    {"role": "assistant", "tool_calls": [{"id": "b", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "b", "content": "text " * 99},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a file of policies, and a package that can be imported."""
    (tmp_path / "mine.py").write_text(MINE)
    package = tmp_path / "lib" / f"package_of_{tmp_path.name}"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "rules.py").write_text(MINE)
    (package / "broken.py").write_text("import no_such_package_at_all\n")
    (package / "raising.py").write_text("1 / 0\n")
    (tmp_path / "slip.py").write_text("def f(:\n")
    (tmp_path / "empty.py").write_text("from leyline_agent import Policy\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["./mine.py:{}", "mine.py:{}", "{folder}/mine.py:{}", "{module}.{}"]
)
class TestFound:
    @pytest.fixture
    def spec(self, name: str, folder: Path) -> str:
        module = f"package_of_{folder.name}.rules"
        return name.replace("{folder}", str(folder)).replace("{module}", module)

    def test_a_class_with_its_options(self, spec: str) -> None:
        made = parse(spec.format("Mine") + ":n=3,words=a|b")
        assert made.model_dump(exclude={"mode"}) == {"n": 3, "words": ["a", "b"]}
        assert parse(spec.format("Mine")) == type(made)()
        with pytest.raises(PolicyError, match="mine: no option 'm'"):
            parse(spec.format("Mine") + ":m=3")

    def test_it_edits(self, spec: str) -> None:
        turn = Session(spec.format("Mine")).begin(RUN)
        assert [edit.start for edit in turn.edits] == [2]

    def test_beside_and_inside_of_others(self, spec: str) -> None:
        pipeline = parse(f"keep_last:n=3+{spec.format('Mine')}:n=2+{spec.format('made')}")
        assert isinstance(pipeline, Pipeline)
        assert [part.name for part in pipeline.policies] == ["keep_last", "mine", "made"]
        inside = parse(f"when:condition=turns>1,policy=({spec.format('Mine')}:n=2)")
        assert inside.model_dump()["policy"]["n"] == 2

    @pytest.mark.parametrize("function", ["made", "turned", "plain"])
    def test_functions(self, spec: str, function: str) -> None:
        assert parse(spec.format(function)).name == function
        with pytest.raises(PolicyError, match="takes no options"):
            parse(spec.format(function) + ":n=1")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("./mine.py", r"\./mine.py: say which policy of it, \./mine.py:Mine"),
        (
            "./mine.py:Mime",
            "has no 'Mime'; did you mean 'Mine'. policies in it: Mine, made, turned",
        ),
        ("./mine.py:NUMBER", "NUMBER of ./mine.py is 3, not a policy; policies in it: Mine"),
        ("./mine.py:Other", "Other is a class, but no policy; derive it from leyline.Policy"),
        ("./nine.py:Mine", "policy ./nine.py:Mine: there is no file /.*/nine.py"),
        ("./empty.py:Mine", "has no 'Mine'; there is no policy in it"),
        ("./slip.py:Mine", "'./slip.py:Mine' cannot be imported: SyntaxError: .*slip.py, line 1"),
        ("./mine:Mine", "'./mine' is no policy; one of your own is my_module.MyPolicy or ./my_"),
        ("mine.Mine", "no module 'mine' that Python can import; install .* ./my_file.py:MyPolicy"),
        ("json.Mine", "json has no 'Mine'; there is no policy in it"),
        ("keep_last.KeepLast", "there is no module 'keep_last' that Python can import"),
        ("xyzzy", "no policy named 'xyzzy'; installed: .*; one of your own is my_module.MyPolicy"),
        (".Mine", "'.Mine' cannot be imported"),
    ],
)
def test_what_is_not_found_is_told_with_what_to_do(spec: str, problem: str) -> None:
    with pytest.raises(PolicyError, match=problem):
        parse(spec)


def test_modules_that_cannot_be_imported_are_named(folder: Path) -> None:
    package = f"package_of_{folder.name}"
    with pytest.raises(PolicyError, match="ModuleNotFoundError: .*no_such_package_at_all"):
        parse(f"{package}.broken.Mine")
    with pytest.raises(PolicyError, match="raising.Mine' cannot be imported: ZeroDivisionError"):
        parse(f"{package}.raising.Mine")


def test_a_file_runs_once_and_again_where_it_failed(folder: Path) -> None:
    assert type(parse("./mine.py:Mine")) is type(parse(f"{folder}/mine.py:Mine"))
    with pytest.raises(PolicyError):
        parse("./slip.py:Mine")
    (folder / "slip.py").write_text(MINE)
    assert parse("./slip.py:Mine").name == "mine"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("keep_last", ("keep_last", "")),
        ("keep_last : n=3,m=4", ("keep_last", " n=3,m=4")),
        ("a.b.C:n=3", ("a.b.C", "n=3")),
        ("./a.py:C:n=b:c", ("./a.py:C", "n=b:c")),
        ("C:/dir/a.py:D", ("C:/dir/a.py:D", "")),
        ("erratum:fields=a.py:b", ("erratum", "fields=a.py:b")),
        ("./a.py", ("./a.py", "")),
    ],
)
def test_names_and_options_are_told_apart(spec: str, parts: tuple[str, str]) -> None:
    assert split_name(spec) == parts


def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run.json").write_text(json.dumps({"messages": [*RUN, *RUN[1:3]]}))
    with pytest.raises(SystemExit) as ended:
        main(["inspect", "run.json", "--policy", "./mine.py:Mine:n=1"])
    assert ended.value.code == 0
    assert "message 2: 124 -> 1 tokens, repair, 1 behind, by mine" in capsys.readouterr().out
