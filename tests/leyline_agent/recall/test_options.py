from pathlib import Path

import pytest

from leyline_agent import LeylineError, Session
from leyline_agent.recall.options import Recall, as_recall


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (None, None),
        (False, None),
        (True, Recall()),
        ("a.db", Recall("a.db")),
        (Path("a.db"), Recall(Path("a.db"))),
        (Recall(max_per_turn=1), Recall(max_per_turn=1)),
    ],
)
def test_what_the_option_takes(given, made):
    assert as_recall(given) == made


@pytest.mark.parametrize("given", [3, "", object()])
def test_what_it_does_not(given):
    with pytest.raises(LeylineError, match="recall="):
        Session(recall=given)


@pytest.mark.parametrize("name", ["max_bytes", "max_per_turn", "max_chars"])
def test_limits_are_limits(name):
    with pytest.raises(LeylineError, match=f"{name} must be at least 1"):
        Recall(**{name: 0})
