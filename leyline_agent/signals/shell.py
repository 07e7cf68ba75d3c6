"""Shell commands taken apart far enough to tell what they read, write and run.

A bounded tokenizer, not a shell: nothing is expanded and nothing is executed. What it does not
understand (loops, conditionals, functions, subshells, unbalanced quotes) it says so about, by
returning None, and its callers then claim nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Command", "Pipeline", "is_literal", "parse"]

_TOKEN = re.compile(
    r"""
    (?P<blank>(?:[ \t\r]|\\\n)+)
  | (?P<comment>\#[^\n]*)
  | (?P<herestring><<<)
  | (?P<heredoc><<(?P<strip>-?)[ \t]*(?P<quote>['"]?)(?P<tag>\w+)(?P=quote))
  | (?P<redirect>&>>?|\d*(?:>>|>&|>\||<&|<>|[<>]))
  | (?P<operator>\n|&&|\|\||\|&?|;;?|&|[()])
  | (?P<word>(?:
        [^\s\\'"`$;&|<>()]++ | \\. | '[^']*' | "(?:[^"\\]|\\.)*+"
      | \$\((?:[^()]|\([^()]*\))*+\) | \$ | `[^`]*`
    )++)
    """,
    re.VERBOSE | re.DOTALL,
)
_QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)|([^'"\\]+)""", re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\$`\n])')
_CONTROL = frozenset(
    "for while until if then else elif fi case esac do done select function { } [[ ! (".split()
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_NOT_LITERAL = re.compile(r"[$`*?\[{]")


@dataclass(frozen=True)
class Command:
    """One simple command.

    Attributes:
        words: program and arguments, without quotes, redirections or assignments.
        source: the file standard input comes from, "" when none.
        heredoc: text given as standard input, None when none.
        targets: files that redirections write.
        silent: whether standard output goes to a file.
    """

    words: tuple[str, ...]
    source: str = ""
    heredoc: str | None = None
    targets: tuple[str, ...] = ()
    silent: bool = False

    @property
    def program(self) -> str:
        """The program's name without its folder; "" for a bare redirection or assignment."""
        return self.words[0].rpartition("/")[2] if self.words else ""


@dataclass(frozen=True)
class Pipeline:
    """Commands joined by pipes, and how the next pipeline hangs on this one.

    Attributes:
        commands: at least one.
        joiner: what stands behind: "&&", "||", ";" or, at the end, "".
    """

    commands: tuple[Command, ...]
    joiner: str = ""


class _Token(NamedTuple):
    kind: str
    text: str


def parse(text: str) -> tuple[Pipeline, ...] | None:
    """The pipelines of a command line; None when it is more than this tokenizer understands."""
    pipelines: list[Pipeline] = []
    stages: list[Command] = []
    tokens: list[_Token] = []
    for token in (*_tokens(text), _Token("operator", ";")):
        if token.kind == "unknown" or token.text in ("(", ")"):
            return None
        if token.kind != "operator":
            tokens.append(token)
            continue
        command = _command(tokens)
        if command is None:
            return None
        tokens = []
        if command.words or command.targets:
            stages.append(command)
        if token.text not in ("|", "|&") and stages:
            joiner = token.text if token.text in ("&&", "||") else ";"
            pipelines.append(Pipeline(tuple(stages), joiner))
            stages = []
    if pipelines:
        pipelines[-1] = Pipeline(pipelines[-1].commands)
    return tuple(pipelines)


def is_literal(word: str) -> bool:
    """Whether a word names one file, without variables or patterns to expand."""
    return bool(word) and word != "-" and not _NOT_LITERAL.search(word)


def _tokens(text: str) -> list[_Token]:
    """The tokens, without blanks and comments; one of kind "unknown" where it gives up."""
    tokens: list[_Token] = []
    waiting: list[tuple[int, str, bool]] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return [*tokens, _Token("unknown", text[position])]
        position = match.end()
        if match["heredoc"]:
            waiting.append((len(tokens), match["tag"], bool(match["strip"])))
            tokens.append(_Token("heredoc", ""))
        elif match["blank"] is None and match["comment"] is None:
            tokens.append(_Token(match.lastgroup or "", match[0]))
        if match[0] == "\n":
            for place, tag, strip in waiting:
                body, position = _heredoc(text, position, tag, strip)
                tokens[place] = _Token("heredoc", body)
            waiting.clear()
    return tokens


def _heredoc(text: str, start: int, tag: str, strip: bool) -> tuple[str, int]:
    """The body that starts at `start` and where the text goes on behind its closing tag."""
    indent = r"\t*" if strip else ""
    close = re.compile(rf"^{indent}{tag}[ \t\r]*(?:\n|\Z)", re.MULTILINE).search(text, start)
    if close is None:
        return text[start:], len(text)
    return text[start : close.start()], close.end()


def _command(tokens: list[_Token]) -> Command | None:
    """One simple command; None for shell grammar beyond that."""
    words: list[str] = []
    targets: list[str] = []
    source, heredoc, silent, redirect = "", None, False, ""
    for kind, text in tokens:
        if kind == "redirect" or kind == "herestring":
            redirect = text
        elif kind == "heredoc":
            heredoc = text
        elif redirect:
            word = _unquote(text)
            if redirect == "<<<":
                heredoc = word
            elif redirect.endswith("<"):
                source = word
            elif not _duplicates(redirect, word):
                silent = silent or not redirect.startswith("2")
                targets.append(word)
            redirect = ""
        else:
            words.append(_unquote(text))
    while words and _ASSIGNMENT.match(words[0]):
        words.pop(0)
    if words and words[0] in _CONTROL:
        return None
    kept = tuple(target for target in targets if not target.startswith("/dev/"))
    return Command(tuple(words), source, heredoc, kept, silent)


def _duplicates(redirect: str, word: str) -> bool:
    """Whether a redirection like 2>&1 joins streams instead of naming a file."""
    return redirect.endswith("&") and (word.isdigit() or word == "-")


def _unquote(word: str) -> str:
    if not any(mark in word for mark in "'\"\\"):
        return word
    return "".join(
        single or _ESCAPED.sub(r"\1", double) or escaped.strip("\n") or plain
        for single, double, escaped, plain in _QUOTED.findall(word)
    )
