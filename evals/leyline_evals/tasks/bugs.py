"""Bugs to plant: each operator finds the places of a module where it makes one kind of mistake.

Only the text of the place changes, so that the layout stays. What a bug does nobody knows before
the tests have run: the generator keeps those that tests notice. No operator can make a loop over
what it appends to, or a number much larger, so that mended and broken programs end alike.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["EASY", "HARD", "KINDS", "MISSING", "Bug", "bugs"]

EASY = ("boundary", "comparison", "arithmetic", "constant", "boolean", "negation", "direction")
HARD = ("arguments", "name", "statement", "return", "copy")
KINDS = EASY + HARD
MISSING = "missing"

_COMPARE: dict[type[ast.cmpop], tuple[str, str, str]] = {
    ast.Lt: ("boundary", "<", "<="),
    ast.LtE: ("boundary", "<=", "<"),
    ast.Gt: ("boundary", ">", ">="),
    ast.GtE: ("boundary", ">=", ">"),
    ast.Eq: ("comparison", "==", "!="),
    ast.NotEq: ("comparison", "!=", "=="),
    ast.In: ("comparison", "in", "not in"),
    ast.NotIn: ("comparison", "not in", "in"),
}
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"),
    ast.Div: ("/", "//"),
}
_OPPOSITE = {
    "min": "max",
    "max": "min",
    "startswith": "endswith",
    "endswith": "startswith",
    "ljust": "rjust",
    "rjust": "ljust",
    "any": "all",
    "all": "any",
}
_COPIES = {"list", "dict", "sorted", "set"}
_TRACE = "note"


@dataclass(frozen=True)
class Bug:
    """A change of a module's text: what stands in [start, end) becomes `text`.

    Attributes:
        path: of the module.
        kind: of the mistake, one of `KINDS`, or `MISSING`: the function is empty.
        function: where it is.
        line: from 1.
    """

    path: str
    kind: str
    function: str
    line: int
    start: int
    end: int
    text: str

    def plant(self, source: str) -> str:
        """The module with the bug."""
        return source[: self.start] + self.text + source[self.end :]


def bugs(path: str, source: str) -> list[Bug]:
    """All bugs that can be planted in a module, in the order of its text.

    Args:
        path: of the module.
        source: its text, in ASCII.
    """
    lines = _Lines(source)
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef):
            for kind, start, end, text in _Function(function, lines).changes():
                line = source.count("\n", 0, start) + 1
                found.append(Bug(path, kind, function.name, line, start, end, text))
    return sorted(found, key=lambda bug: (bug.start, bug.kind, bug.text))


Change = tuple[str, int, int, str]


class _Lines:
    """Offsets in a text of what syntax trees count by line and column."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._begin = [0]
        for line in text.splitlines(keepends=True):
            self._begin.append(self._begin[-1] + len(line))

    def begin(self, line: int) -> int:
        return self._begin[line - 1]

    def start(self, node: ast.expr | ast.stmt) -> int:
        return self._begin[node.lineno - 1] + node.col_offset

    def end(self, node: ast.expr | ast.stmt) -> int:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._begin[node.end_lineno - 1] + node.end_col_offset

    def of(self, node: ast.expr | ast.stmt) -> str:
        return self.text[self.start(node) : self.end(node)]


class _Function:
    """The changes of one function."""

    def __init__(self, function: ast.FunctionDef, lines: _Lines) -> None:
        self._function = function
        self._lines = lines
        self._names = sorted(_locals(function))

    def changes(self) -> Iterator[Change]:
        """What can be changed, trace calls and docstrings left alone; or all behind a docstring."""
        yield from self._missing()
        for node in _walk(self._function):
            if isinstance(node, ast.expr):
                yield from self._expression(node)
            elif isinstance(node, ast.stmt):
                yield from self._statement(node)

    def _missing(self) -> Iterator[Change]:
        body = self._function.body[1:]
        if body and ast.get_docstring(self._function):
            start = self._lines.begin(body[0].lineno)
            yield MISSING, start, self._after(body[-1]), ""

    def _expression(self, node: ast.expr) -> Iterator[Change]:
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                kind, token, other = _COMPARE[type(op)]
                yield from self._between(kind, left, right, token, other)
            case ast.BinOp(left=left, op=binary, right=right) if type(binary) in _ARITHMETIC:
                yield from self._between("arithmetic", left, right, *_ARITHMETIC[type(binary)])
            case ast.BoolOp(op=boolean, values=[left, right]):
                tokens = ("and", "or") if isinstance(boolean, ast.And) else ("or", "and")
                yield from self._between("boolean", left, right, *tokens)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._at("negation", node, self._lines.of(operand))
            case ast.Constant(value=value):
                yield from self._constant(node, value)
            case ast.Call():
                yield from self._call(node)

    def _constant(self, node: ast.expr, value: object) -> Iterator[Change]:
        if isinstance(value, bool):
            yield self._at("direction", node, str(not value))
        elif isinstance(value, int):
            yield self._at("constant", node, str(value + 1))
            if value > 0:
                yield self._at("constant", node, str(value - 1))

    def _call(self, node: ast.Call) -> Iterator[Change]:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if name in _OPPOSITE:
            end = self._lines.end(node.func)
            yield "direction", end - len(name), end, _OPPOSITE[name]
        if name in _COPIES and len(node.args) == 1 and not node.keywords:
            if not isinstance(node.args[0], ast.GeneratorExp):
                yield self._at("copy", node, self._lines.of(node.args[0]))
        for one, other in zip(node.args, node.args[1:], strict=False):
            first, second = self._lines.of(one), self._lines.of(other)
            if first != second and isinstance(one, ast.Name | ast.Attribute | ast.Subscript):
                text = self._lines.text
                between = text[self._lines.end(one) : self._lines.start(other)]
                start, end = self._lines.start(one), self._lines.end(other)
                yield "arguments", start, end, second + between + first
        for argument in node.args:
            yield from self._other_name(argument)

    def _other_name(self, node: ast.expr) -> Iterator[Change]:
        """Another variable in a name's place; not of what a loop runs over."""
        if isinstance(node, ast.Name) and node.id in self._names:
            for name in self._names:
                if name != node.id:
                    yield self._at("name", node, name)

    def _statement(self, node: ast.stmt) -> Iterator[Change]:
        match node:
            case ast.If(test=ast.Name() | ast.Call() | ast.Attribute() as test):
                yield self._at("negation", test, f"not {self._lines.of(test)}")
            case ast.AugAssign(target=target, op=op, value=value) if type(op) in _ARITHMETIC:
                token, other = _ARITHMETIC[type(op)]
                yield from self._between("arithmetic", target, value, f"{token}=", f"{other}=")
        for name in ("body", "orelse"):
            block = getattr(node, name, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                yield from self._block(block)

    def _block(self, block: list[ast.stmt]) -> Iterator[Change]:
        """A step forgotten, and a return that slipped into the loop before it."""
        for node in block:
            simple = isinstance(node, ast.AugAssign | ast.Continue) or _is_step(node)
            if simple and len(block) > 1 and node is not block[0]:
                yield "statement", self._lines.begin(node.lineno), self._after(node), ""
        for before, node in zip(block, block[1:], strict=False):
            if isinstance(before, ast.For) and isinstance(node, ast.Return):
                start = self._lines.begin(node.lineno)
                yield "return", start, start, "    "

    def _after(self, node: ast.stmt) -> int:
        assert node.end_lineno is not None
        return self._lines.begin(node.end_lineno + 1)

    def _at(self, kind: str, node: ast.expr, text: str) -> Change:
        return kind, self._lines.start(node), self._lines.end(node), text

    def _between(
        self, kind: str, left: ast.expr, right: ast.expr, token: str, other: str
    ) -> Iterator[Change]:
        """The operator between two operands, where nothing else stands there."""
        start, end = self._lines.end(left), self._lines.start(right)
        between = self._lines.text[start:end]
        if between.strip() == token:
            yield kind, start, end, between.replace(token, other)


def _walk(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, with neither its docstring nor what it traces."""
    waiting: list[ast.AST] = [function]
    while waiting:
        node = waiting.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if not (isinstance(child, ast.Expr) and _is_aside(child)):
                waiting.append(child)


def _is_aside(node: ast.Expr) -> bool:
    value = node.value
    if isinstance(value, ast.Call):
        return getattr(value.func, "id", "") == _TRACE
    return isinstance(value, ast.Constant)


def _is_step(node: ast.stmt) -> bool:
    """Whether a statement only does something, such as appending to a list."""
    return isinstance(node, ast.Expr) and not _is_aside(node)


def _locals(function: ast.FunctionDef) -> set[str]:
    """Parameters, and names assigned by statements of their own."""
    names = {argument.arg for argument in function.args.args}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
