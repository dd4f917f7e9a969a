"""`llmtagger prompt`: look at the prompts, and at what they become."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, show and render prompts.", no_args_is_help=True)


@app.command("list")
def list_() -> None:
    """List the prompts that come with llmtagger."""
    from llmtagger.stages.prompting import list_templates

    sys.stdout.write("".join(f"{name}\n" for name in list_templates()))


@app.command()
def show(name: Annotated[str, typer.Argument(help="A prompt's name or a .jinja file.")]) -> None:
    """Print a prompt's template. Example: `llmtagger prompt show tag.v1`"""
    from llmtagger.stages.prompting import find_template

    sys.stdout.write(find_template(name).source)


@app.command()
def render(
    name: Annotated[str, typer.Argument(help="A prompt's name or a .jinja file.")],
    input_: Annotated[str, typer.Argument(metavar="INPUT", help="Products; - is stdin.")],
    index: Annotated[Path, typer.Option("-i", "--index", help="An index folder.")],
    limit: Annotated[int, typer.Option(min=1, help="Only the first N products.")] = 3,
    config: Annotated[
        Path | None, typer.Option(help="Settings.  [default: llmtagger.toml if there]")
    ] = None,
) -> None:
    """Print the prompts for INPUT just as the model would get them; asks no server."""
    from llmtagger.cli.options import catalog_options
    from llmtagger.config import load_settings
    from llmtagger.tagging import TagJob, dry_run

    settings = load_settings(config)
    options = catalog_options(settings, None, None)
    job = TagJob(input_, index, "-", prompt=name, limit=limit, settings=settings, options=options)
    for product, prompt in dry_run(job).prompts:
        sys.stdout.write(f"=== {product.id}\n")
        for role, text in prompt.messages:
            sys.stdout.write(f"--- {role}\n{text}\n")
