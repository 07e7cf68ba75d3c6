import io

import pytest
import rich.progress
from rich.console import Console

from leyline_evals.progress import OneBar


def test_a_bar_is_drawn_on_terminals_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with OneBar(rich.progress.TextColumn("{task.description}"), description="loading", total=2):
        pass
    assert capsys.readouterr() == ("", "")

    drawn = io.StringIO()
    terminal = Console(file=drawn, force_terminal=True, width=80)
    monkeypatch.setattr("leyline_evals.progress.Console", lambda stderr: terminal)
    columns = (rich.progress.TextColumn("{task.description}"), rich.progress.MofNCompleteColumn())
    with OneBar(*columns, description="loading", total=2) as bar:
        bar.say("the first")
        bar.show(advance=1)
    assert "the first" in drawn.getvalue()
    assert "1/2" in drawn.getvalue()
