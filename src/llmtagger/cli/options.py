"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.errors import ConfigError

if TYPE_CHECKING:
    from llmtagger.catalog import CatalogOptions
    from llmtagger.config import Settings

IndexFolder = Annotated[Path, typer.Option("-i", "--index", help="An index folder.")]
ModelName = Annotated[
    str, typer.Option(help="auto, a folder, or a Hugging Face id; a name with --endpoint.")
]
Endpoints = Annotated[list[str] | None, typer.Option(help="A vLLM server to use; repeatable.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings.  [default: llmtagger.toml if there]")
]


def catalog_options(
    settings: Settings, encoding: str | None, on_duplicate: str | None
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
        columns=settings.catalogue.columns,
        on_duplicate=chosen,  # type: ignore[arg-type]
    )
