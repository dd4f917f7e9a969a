"""The studio's server: routes, and who may reach it."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import socket
from collections.abc import Callable

from nicegui import Client, app, background_tasks, ui
from nicegui.server import Server

from llmtagger.errors import ConfigError, LlmtaggerError
from llmtagger.studio.editor import Editor
from llmtagger.studio.frame import framed
from llmtagger.studio.gold import GoldView
from llmtagger.studio.guard import Guard, is_loopback
from llmtagger.studio.matrix import Matrix
from llmtagger.studio.verdict import VerdictView
from llmtagger.studio.workspace import Workspace
from llmtagger.terminal import one_line

_RECONNECT = 30.0  # seconds in which a tab that lost its connection finds its page again


def serve(
    workspace: Workspace, *, host: str, port: int, browser: bool, ready: Callable[[str], None]
) -> None:
    """Serve the studio until it is stopped; `ready` hears its address.

    Beyond loopback the address has a token, without which nothing is shown.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    port = _usable_port(host, port)
    hosts = frozenset({host, socket.gethostname(), socket.getfqdn()} if token else {host})
    _routes(workspace)
    app.add_middleware(Guard, hosts=hosts, token=token)
    address = f"http://{host}:{port}/" + (f"?token={token}" if token else "")

    async def announce() -> None:
        while not Server.instance.started:  # a port that answers may be another program's
            await asyncio.sleep(0.05)
        ready(address)

    app.on_startup(lambda: background_tasks.create(announce()))
    logging.getLogger("nicegui").setLevel(logging.WARNING)
    logging.getLogger("nicegui").addFilter(_is_unforeseen)
    for name in ("nicegui", "uvicorn.error"):
        logging.getLogger(name).addFilter(_harmless)
    ui.run(
        host=host,
        port=port,
        title=f"{workspace.folder.name} · llmtagger studio",
        favicon="🏷",
        show=browser,
        reload=False,
        show_welcome_message=False,
        reconnect_timeout=_RECONNECT,
        uvicorn_logging_level="warning",
        access_log=False,
    )


def _is_unforeseen(record: logging.LogRecord) -> bool:
    """Whether no page shows it: our own errors say there what to do, and need no traceback."""
    return record.exc_info is None or not isinstance(record.exc_info[1], LlmtaggerError)


def _harmless(record: logging.LogRecord) -> bool:
    """Spell out what a terminal would act on: a request's address is anybody's text."""
    record.msg, record.args = one_line(record.getMessage()), ()
    return True


def _explain(error: Exception) -> None:
    """The page in place of one that cannot be drawn."""
    if not isinstance(error, LlmtaggerError):
        raise error
    ui.label(error.message)
    ui.label(f"→ {error.hint}")


def _routes(workspace: Workspace) -> None:
    app.on_page_exception(_explain)

    @ui.page("/")
    def matrix() -> None:
        with framed(workspace, "/") as frame:
            Matrix(frame)

    @ui.page("/edit")
    async def edit(client: Client, version: str = "", product: str = "") -> None:
        await client.connected()
        with framed(workspace, "/edit") as frame:
            Editor(frame, version or None, product or None, client.tab_id or client.id)

    @ui.page("/verdict")
    def verdict() -> None:
        with framed(workspace, "/verdict") as frame:
            VerdictView(frame)

    @ui.page("/gold")
    def gold() -> None:
        with framed(workspace, "/gold") as frame:
            GoldView(frame)


def _usable_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0; `ConfigError` where it cannot be listened on."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                f"port {port} is in use: another studio or program listens on it",
                hint="end that one, or choose another port with --port (0: any that is free)",
            ) from error
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {error.strerror}",
            hint="check --host and --port",
        ) from error
