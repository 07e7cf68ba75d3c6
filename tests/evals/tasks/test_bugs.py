from __future__ import annotations

import ast

import pytest

from leyline_evals.tasks.bugs import KINDS, MISSING, bugs
from leyline_evals.tasks.programs import programs

SOURCE = '''\
def total(rows, least, names):
    """What the rows add up to: 1 + 1 == 2."""
    found = list(names)
    total = 0
    for row in rows:
        if row.startswith("#") or not row:
            continue
        if len(row) >= least:
            total += count(row, least)
        note(f"{1 + 1}")
    return total
'''


def planted(kind: str) -> set[str]:
    """The lines that bugs of a kind change, as they are then."""
    changed = set()
    for bug in bugs("m.py", SOURCE):
        if bug.kind == kind:
            before, after = SOURCE.splitlines(), bug.plant(SOURCE).splitlines()
            changed |= {line.strip() for line in after if line not in before}
    return changed


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("boundary", "if len(row) > least:"),
        ("arithmetic", "total -= count(row, least)"),
        ("constant", "total = 1"),
        ("boolean", 'if row.startswith("#") and not row:'),
        ("negation", 'if row.startswith("#") or row:'),
        ("direction", 'if row.endswith("#") or not row:'),
        ("arguments", "total += count(least, row)"),
        ("name", "total += count(row, names)"),
        ("copy", "found = names"),
    ],
)
def test_each_kind_changes_its_place(kind: str, line: str) -> None:
    assert line in planted(kind)


def test_a_return_slips_into_the_loop_before_it() -> None:
    (bug,) = [bug for bug in bugs("m.py", SOURCE) if bug.kind == "return"]
    assert bug.plant(SOURCE).endswith("        return total\n")
    assert (bug.function, bug.line) == ("total", 11)


def test_a_step_is_forgotten() -> None:
    source = "def f(xs):\n    made = []\n    made.append(xs)\n    return made\n"
    (bug,) = [bug for bug in bugs("m.py", source) if bug.kind == "statement"]
    assert bug.plant(source) == "def f(xs):\n    made = []\n    return made\n"


def test_a_function_is_empty() -> None:
    (bug,) = [bug for bug in bugs("m.py", SOURCE) if bug.kind == MISSING]
    head = SOURCE[: SOURCE.index("    found")]
    assert bug.plant(f"{SOURCE}\nx = 1\n") == f"{head}\nx = 1\n"
    assert (bug.function, bug.line) == ("total", 3)


def test_docstrings_and_traces_stay_as_they_are() -> None:
    for bug in (bug for bug in bugs("m.py", SOURCE) if bug.kind != MISSING):
        text = bug.plant(SOURCE)
        assert "1 + 1 == 2" in text
        assert 'note(f"{1 + 1}")' in text


def test_every_bug_is_another_program_that_can_be_read() -> None:
    kinds = set()
    for program in programs():
        for module, source in program.modules.items():
            sound = ast.dump(ast.parse(source))
            found = {bug.plant(source): bug.kind for bug in bugs(module, source)}
            assert sound not in {ast.dump(ast.parse(text)) for text in found}
            kinds |= set(found.values())
    assert kinds == {*KINDS, MISSING}
