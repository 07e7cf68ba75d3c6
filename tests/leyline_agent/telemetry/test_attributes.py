"""The names in docs/observability.md, held against the code."""

import re
from pathlib import Path

from leyline_agent.telemetry import attributes, metrics, turns

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "observability.md"
SOURCES = "".join(Path(module.__file__).read_text() for module in (attributes, metrics, turns))
NAME = r"(?:gen_ai|leyline)\.[\w.]+|error\.type"


def documented():
    """Every name in a table; `.end` behind `leyline.edit.start` is `leyline.edit.end`."""
    for row in re.findall(r"^\| (`.*)\|$", DOCUMENT.read_text(), re.M):
        prefix = ""
        for name in re.findall(r"`([\w.]+)`", row):
            if re.fullmatch(NAME, name):
                prefix = name.rpartition(".")[0]
                yield name
            elif name.startswith("."):
                yield prefix + name


def test_every_name_is_documented_and_made():
    told = set(documented())
    made = set(re.findall(rf'"({NAME})"', SOURCES)) - {
        "leyline.policies",
        "leyline.edit",
        "leyline.moment",
        "leyline.recall",
    }
    made |= {f"leyline.tokens.{kind}" for kind in attributes.TOKEN_KINDS}
    made |= {f"gen_ai.request.{name}" for name in attributes.OPTIONS}
    assert told == made
