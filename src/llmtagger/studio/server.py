"""The studio's server: routes, and who may reach it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable

from nicegui import Client, app, background_tasks, ui

from llmtagger.errors import ConfigError, LlmtaggerError
from llmtagger.studio.editor import Editor
from llmtagger.studio.frame import framed
from llmtagger.studio.gold import GoldView
from llmtagger.studio.guard import Guard, is_loopback
from llmtagger.studio.matrix import Matrix
from llmtagger.studio.verdict import VerdictView
from llmtagger.studio.workspace import Workspace

LOOPBACK = "127.0.0.1"
_RECONNECT = 30.0  # seconds in which a tab that lost its connection finds its page again


def serve(
    workspace: Workspace, *, host: str, port: int, browser: bool, ready: Callable[[str], None]
) -> None:
    """Serve the studio until it is stopped; `ready` hears its address.

    Beyond loopback the address has a token, without which nothing is shown.
    """
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    port = port or _free_port(host)
    hosts = frozenset({host, socket.gethostname(), socket.getfqdn()} if token else {host})
    _routes(workspace)
    app.add_middleware(Guard, hosts=hosts, token=token)
    address = f"http://{host}:{port}/" + (f"?token={token}" if token else "")

    async def announce() -> None:
        while not _listens(host, port):
            await asyncio.sleep(0.05)
        ready(address)

    app.on_startup(lambda: background_tasks.create(announce()))
    logging.getLogger("nicegui").setLevel(logging.WARNING)
    logging.getLogger("nicegui").addFilter(_is_unforeseen)
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


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK if host == "0.0.0.0" else host, port), timeout=1):
            return True
    except OSError:
        return False


def _free_port(host: str) -> int:
    try:
        with socket.socket() as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}: {error.strerror}", hint="check --host"
        ) from error
