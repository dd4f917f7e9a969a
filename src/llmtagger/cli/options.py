"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.errors import ConfigError

if TYPE_CHECKING:
    from llmtagger.catalog import CatalogOptions
    from llmtagger.config import Settings

IndexFolder = Annotated[Path, typer.Option("-i", "--index", help="The index folder.")]
ModelName = Annotated[
    str, typer.Option(help="auto, a folder, or a Hugging Face id; a name with --endpoint.")
]
Endpoints = Annotated[list[str] | None, typer.Option(help="A vLLM server to use; repeatable.")]
PromptName = Annotated[
    str | None, typer.Option(help="A prompt's name or a .jinja file.  [default: by the index]")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings file.  [default: llmtagger.toml if there]")
]

Mapped = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="FIELD=COLUMN", help="Read this field from this column; repeatable."
    ),
]


def mapped_columns(pairs: Sequence[str]) -> dict[str, str]:
    """The columns that `--map` names, by field.

    >>> mapped_columns(["title=Product name"])
    {'title': 'Product name'}
    """
    found: dict[str, str] = {}
    for pair in pairs:
        field, equals, column = (part.strip() for part in pair.partition("="))
        if not (field and equals and column):
            raise ConfigError(
                f"--map {pair!r} does not name a field and a column",
                hint='write it as FIELD=COLUMN, such as --map "title=Product name"',
            )
        if found.setdefault(field, column) != column:
            raise ConfigError(
                f"--map names two columns for {field}: {found[field]!r} and {column!r}",
                hint="name one",
            )
    return found


def catalog_options(
    settings: Settings,
    encoding: str | None = None,
    on_duplicate: str | None = None,
    mapped: Sequence[str] | None = None,
) -> CatalogOptions:
    """How to read input: an option of the command line goes before the settings."""
    from llmtagger.catalog import CatalogOptions

    chosen = on_duplicate or settings.catalogue.on_duplicate
    if chosen not in ("error", "first", "last"):
        raise ConfigError(
            f"--on-duplicate {chosen!r} is not known", hint="use error, first or last"
        )
    return CatalogOptions(
        encoding=encoding or settings.catalogue.encoding,
        columns={**settings.catalogue.columns, **mapped_columns(mapped or ())},
        on_duplicate=chosen,  # type: ignore[arg-type]
    )
