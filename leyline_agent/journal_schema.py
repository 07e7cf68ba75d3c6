"""The events of a journal as models, and their JSON schema: docs/journal.md in code.

    python -m leyline_agent.journal_schema > journal.schema.json

A session writes what these say and nothing else. Readers that must live with later versions of
Leyline pass over events and fields that they do not know.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from leyline_agent.directive import Mode
from leyline_agent.journal import SCHEMA
from leyline_agent.message import Message
from leyline_agent.receipt import Receipt
from leyline_agent.timing.moment import Moment
from leyline_agent.trajectory import Observations

__all__ = ["Event", "schema", "validated"]


class _Line(BaseModel):
    """What every line has."""

    model_config = ConfigDict(extra="forbid")

    v: Literal[1]
    time: float = Field(description="Seconds since 1970.")


class Opened(_Line):
    """The first line: a new session begins."""

    event: Literal["open"]
    session: str
    observations: Observations
    mode_floor: Mode | None
    adapter: str
    policies: list[str] = Field(description="Their names.")


class Resumed(_Line):
    """The file is continued by another process."""

    event: Literal["resume"]


class Begun(_Line):
    """A call is about to be made."""

    event: Literal["begin"]
    base: int = Field(ge=0, description="The version it starts from; 0 is the empty beginning.")
    version: int = Field(ge=1, description="The version it makes when it is answered.")
    view_digest: str


class EditMade(BaseModel):
    """One edit: messages [start, end) of the view before the edits became `replacement`."""

    model_config = ConfigDict(extra="forbid")

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    replacement: list[Message]
    asked: Mode
    mode: Mode = Field(description="The mode it was sent with; never weaker than `asked`.")
    reason: str = Field(description="The policy's own words.")
    policy: str
    redact: bool
    recall: list[str] = Field([], description="Ids of what each replacement cut; see recall.")


class Recalled(BaseModel):
    """One call of the recall tool."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(description="What was asked for; empty where that could not be read.")
    found: bool = Field(description="Whether the answer shows it.")
    again: bool = Field(description="Whether it had been shown before: the policy cut too much.")
    policy: str = Field(description="Whose edit had cut it.")


class Exchange(BaseModel):
    """A recall: it stands in the view in the reply's place, or where there is none, behind all."""

    model_config = ConfigDict(extra="forbid")

    reply: Message = Field(description="The model's whole reply.")
    results: list[Message] = Field(description="The answers to its recalls.")
    recalled: list[Recalled]


class NotTaken(BaseModel):
    """A policy, or an edit of one, that was not taken."""

    model_config = ConfigDict(extra="forbid")

    policy: str
    where: str = Field(description="The messages it meant; empty for the whole policy.")
    kind: str = Field(description="The error's name.")
    detail: str


class Committed(_Line):
    """The call was answered: how version `version` came from version `base`."""

    event: Literal["commit"]
    base: int = Field(ge=0)
    version: int = Field(ge=1)
    kept: int = Field(ge=0, description="Messages of the base's history that stay.")
    pieces: int = Field(ge=0, description="Pieces of the base's view that stay.")
    messages: list[Message] = Field(description="What is new in the history, unedited.")
    edits: list[EditMade]
    skipped: list[NotTaken]
    moments: list[Moment] = Field([], description="When edits are made, where there is timing.")
    reply: Message | None
    exchange: Exchange | None = Field(None, description="The recall in the model's reply.")
    receipt: Receipt = Field(description="The engine's; fields at their defaults are left out.")


class RecallSet(_Line):
    """Whether the recall tool is declared was decided."""

    event: Literal["recall"]
    on: bool
    key: str = Field(description="Under which the archive keeps what the session cut.")


class Failed(_Line):
    """The call failed or was given up; nothing is committed."""

    event: Literal["fail"]
    version: int = Field(ge=1)
    error: str = Field(description="The exception's name, or the caller's word for it.")


class AnswerCame(_Line):
    """A model was asked what a policy wants to know."""

    event: Literal["answer"]
    policy: str
    key: str = Field(description="The question's name: a digest of what was asked.")
    tokens: int = Field(ge=0, description="Read and written, estimated where nobody counted.")
    text: str | None = Field(description="Null where there was no answer, or after a redaction.")


Event = Annotated[
    Opened | Resumed | RecallSet | Begun | AnswerCame | Committed | Failed,
    Field(discriminator="event"),
]
"""Any line of a journal."""

_ANY: TypeAdapter[Event] = TypeAdapter(Event)


def schema() -> dict[str, Any]:
    """The JSON schema of one line."""
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"One line of a Leyline journal, schema {SCHEMA}",
    }
    return {**about, **_ANY.json_schema()}


def validated(line: str | bytes) -> Event:
    """A line of a journal as its model.

    Raises:
        ValueError: it is no JSON, or (pydantic.ValidationError) no event of this schema.
    """
    return _ANY.validate_python(json.loads(line))  # pydantic's own reader refuses lone surrogates


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
