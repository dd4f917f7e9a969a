"""`llmtagger engine`: a model server of our own that stays, so that runs need not wait for one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from llmtagger.cli.console import marked, stderr, write, write_json
from llmtagger.cli.exits import ExitCode

if TYPE_CHECKING:
    from llmtagger.backends.vllm_process import ServerInfo

LAST_LINES = 50
app = typer.Typer(help="Start, stop and watch a vLLM server on this machine.", no_args_is_help=True)


@app.command()
def start(
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|PATH", help="Hugging Face id, folder, or auto.")
    ] = "auto",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port on 127.0.0.1.  [default: a free one]"),
    ] = None,
) -> None:
    """Start a server that stays up until `engine stop`. Runs with its model use it."""
    from llmtagger.backends import vllm_process
    from llmtagger.backends.models import resolve_model

    with stderr().status("finding the model") as status:

        def progress(message: str, seconds: float) -> None:
            status.update(marked("{} ({:.0f} s)", message, seconds))

        info = vllm_process.start(resolve_model(model), port=port, progress=progress)
    stderr().print(f"{info.model} is served at {info.url} (log: {info.log})")


@app.command()
def stop() -> None:
    """Stop every server that `engine start` started."""
    from llmtagger.backends import vllm_process

    ended = vllm_process.stop()
    for info in ended:
        stderr().print(f"Stopped {info.model} at {info.url}.")
    if not ended:
        stderr().print("No llmtagger server is running.")


@app.command()
def status(
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the servers that llmtagger runs on this machine. Exits 1 if there is none."""
    from dataclasses import asdict

    from llmtagger.backends import vllm_process

    servers = vllm_process.status()
    if json_:
        write_json([asdict(info) for info in servers], indent=2)
    else:
        for info in servers:
            write(_describe(info) + "\n")
    if not servers:
        stderr().print("No llmtagger server is running.")
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def logs(
    port: Annotated[int | None, typer.Option(help="The server's port.")] = None,
) -> None:
    """Print the last lines of a server's log. Without --port: the newest server's."""
    from llmtagger.backends import vllm_process
    from llmtagger.backends.vllm_log import tail

    path = vllm_process.log_path(port)
    if path is None:
        stderr().print("There is no log yet.")
        raise typer.Exit(ExitCode.FAILED)
    stderr().print(str(path), style="dim")
    lines = tail(path).splitlines()[-LAST_LINES:]
    write("".join(f"{line}\n" for line in lines))


def _describe(info: ServerInfo, clock: Callable[[], float] = time.time) -> str:
    kind = "stays until `engine stop`" if info.persistent else "ends with its run"
    minutes = max(0.0, clock() - info.started) / 60
    return f"{info.url}  {info.model}  pid {info.pid}, up {minutes:.0f} min, {kind}"
