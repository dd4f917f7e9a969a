"""The command line: one thin file a command group; parse, call, print."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from llmtagger import __version__
from llmtagger.cli import (
    adapter,
    calibrate,
    doctor,
    engine,
    eval,
    gold,
    index,
    label,
    prompt,
    studio,
    tag,
    tune,
)
from llmtagger.cli.console import stderr
from llmtagger.errors import LlmtaggerError

app = typer.Typer(
    name="llmtagger",
    help="Tags e-commerce products with a language model, and shows the evidence for every tag.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(index.app, name="index")
app.command("tag")(tag.tag)
app.command("calibrate")(calibrate.calibrate)
app.add_typer(eval.app, name="eval")
app.command("tune")(tune.tune)
app.add_typer(adapter.app, name="adapter")
app.add_typer(label.app, name="label")
app.add_typer(gold.app, name="gold")
app.add_typer(engine.app, name="engine")
app.add_typer(prompt.app, name="prompt")
app.command("studio")(studio.studio)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"llmtagger {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Tags e-commerce products with a language model, and shows the evidence for every tag."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 usage, 3 rejected rows, 130 Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        app()
    except LlmtaggerError as error:
        stderr().print(f"[bold red]Error:[/] {_plain(error.message)}")
        stderr().print(f"[dim]→[/] {_plain(error.hint)}")
        raise SystemExit(1) from None
    except BrokenPipeError:
        raise SystemExit(1) from None


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Leave in order: what is done is journalled, what was started is stopped."""
    sys.stderr.write("\nInterrupted; the same command goes on where it stopped.\n")
    raise SystemExit(128 + number)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
