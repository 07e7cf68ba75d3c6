from __future__ import annotations

import pytest

from leyline_evals.tasks.programs import Program, failures, programs

TRAIL = "def note(text):\n    print(text)\n"


def files(program: Program, size: int) -> dict[str, str]:
    return {
        f"{program.name}/trail.py": TRAIL,
        **{f"{program.name}/{name}.py": text for name, text in program.modules.items()},
        "tests/scale.py": f"SIZE = {size}\n",
        **{f"tests/test_{name}.py": text for name, text in program.tests.items()},
        **{f"hidden/test_hidden_{name}.py": text for name, text in program.hidden.items()},
    }


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.name)
@pytest.mark.parametrize("size", [4, 8, 12])
def test_a_program_is_sound(
    program: Program, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    made = files(program, size)
    assert failures(made, [path for path in made if "test_" in path]) == set()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.name)
def test_a_program_has_small_modules_and_tests_for_each(program: Program) -> None:
    assert set(program.modules) == set(program.tests) == set(program.hidden)
    assert len(program.modules) >= 4
    assert len(program.leaves) >= 2


def test_what_fails_is_named() -> None:
    made = {
        "p/m.py": "def one():\n    return 1\n",
        "t/test_m.py": "from p.m import one\n\n\ndef test_it():\n    assert one() == 2\n\n\n"
        "def test_other():\n    assert one() == 1\n",
        "t/test_n.py": "from p.m import two\n",
    }
    assert failures(made, ["t/test_m.py", "t/test_n.py"]) == {"t/test_m.py::test_it", "t/test_n.py"}
