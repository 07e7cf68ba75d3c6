"""What the documents say, held against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from leyline_agent.cli.doctor import DoctorReport
from leyline_agent.cli.models import ModelsReport
from leyline_agent.receipt import Reason

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(text: str, title: str) -> str:
    """The part of a document under one `## title`."""
    return re.split(r"^## ", text.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every field of a report, nested lists as `name[].field`."""
    for name, field in model.model_fields.items():
        inner = get_args(field.annotation)[0] if get_origin(field.annotation) is list else None
        if inner is not None:
            yield from fields(inner, f"{prefix}{name}[].")
        else:
            yield prefix + name


@pytest.mark.parametrize(
    ("title", "model"), [("leyline models", ModelsReport), ("leyline doctor", DoctorReport)]
)
def test_json_schemas_are_documented(title: str, model: type[BaseModel]) -> None:
    text = section((ROOT / "docs" / "cli.md").read_text(), title)
    documented = re.findall(r"^\| `([\w.\[\]]+)` \|", text, re.M)
    assert documented == list(fields(model))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_index_names_every_document() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    missing = [d.name for d in (ROOT / "docs").glob("*.md") if f"({d.name})" not in index]
    assert missing == ["index.md"]


def test_every_reason_is_explained() -> None:
    text = section((ROOT / "docs" / "engine.md").read_text(), "How an edit is carried out")
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", text, re.M)
    explained = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert explained == {reason.value for reason in Reason}
