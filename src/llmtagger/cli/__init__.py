"""The command line: one thin file a command group; parse, call, print."""

from __future__ import annotations

import io
import signal
import sys
import traceback
from types import FrameType, TracebackType
from typing import cast

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
from llmtagger.cli.console import complain, log_to_stderr, marked, stderr, write
from llmtagger.cli.exits import ExitCode
from llmtagger.errors import LlmtaggerError, Unpromised

# The parent of `BadParameter`, which typer does not export.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__bases__[0])
app = typer.Typer(
    name="llmtagger",
    help="Tags e-commerce products with a language model, and shows the evidence for every tag.",
    no_args_is_help=True,
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
        write(f"llmtagger {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
    verbose: bool = typer.Option(
        False, "-v", "--verbose", help="Log decisions and timings to stderr."
    ),
) -> None:
    """Tags e-commerce products with a language model, and shows the evidence for every tag."""
    log_to_stderr(verbose=verbose)


def main() -> None:
    """Run the command line; what it exits with, `exits.ExitCode` says."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    sys.excepthook = _crashed
    try:
        code = app(standalone_mode=False)
    except _UsageError as error:
        complain(_usage(error))
        raise SystemExit(ExitCode.USAGE) from None
    except Unpromised as error:
        _explain(error)
        raise SystemExit(ExitCode.UNPROMISED) from None
    except LlmtaggerError as error:
        _explain(error)
        raise SystemExit(ExitCode.FAILED) from None
    except BrokenPipeError:
        raise SystemExit(ExitCode.FAILED) from None
    raise SystemExit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Leave in order: what is done is journalled, what was started is stopped."""
    complain("\nInterrupted. Run the same command to resume.\n")
    raise SystemExit(ExitCode(128 + number))


def _explain(error: LlmtaggerError) -> None:
    """What happened, and what to do."""
    stderr().print(marked("[bold red]Error:[/] ").append(error.message))
    stderr().print(marked("[dim]→[/] ").append(error.hint))


def _usage(error: typer.BadParameter) -> str:
    """What typer says of an error in the arguments, which may hold a file's hostile name."""
    text = io.StringIO()
    error.show(file=text)
    return text.getvalue()


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback, in which a message may hold foreign text."""
    complain("".join(traceback.format_exception(kind, error, trace)))
