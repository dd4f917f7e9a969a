"""`llmtagger studio`: prompts in the browser."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Annotated

import typer

from llmtagger.cli.console import complain, marked, stderr
from llmtagger.cli.exits import ExitCode
from llmtagger.cli.options import ConfigFile, Endpoints, IndexFolder, ModelName


def studio(
    index: IndexFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 picks a free one.")] = 8090,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs a token.")
    ] = "127.0.0.1",
    model: ModelName = "auto",
    endpoint: Endpoints = None,
    config: ConfigFile = None,
) -> None:
    """Edit and compare prompts in the browser; tag by hand.

    Example: `llmtagger studio -i indexes/shop`
    """
    from llmtagger.errors import ConfigError

    try:
        from llmtagger.studio.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the studio needs {error.name}, which is not here",
            hint="pip install 'llmtagger[studio]'",
        ) from error
    from llmtagger.backends.folders import cache_dir
    from llmtagger.studio.workspace import Workspace

    def ready(address: str) -> None:
        stderr().print(marked("The studio is at [bold]{}[/]; Ctrl-C ends it.", address))

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped)
    with Workspace(
        index,
        config=config,
        model=model,
        endpoints=endpoint or (),
        cache=cache_dir() / "evaluation",
    ) as workspace:
        serve(workspace, host=host, port=port, browser=browser, ready=ready)


def _stopped(number: int, frame: FrameType | None) -> None:
    """Leave in order: the server raises the signal again when its last page is closed."""
    complain("\nStudio stopped.\n")
    raise SystemExit(ExitCode(128 + number))
