"""How the studio starts and ends."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("nicegui")

from llmtagger.cli.studio import _stopped
from llmtagger.errors import ConfigError
from llmtagger.studio.server import _harmless, _usable_port, serve


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_port_in_use_is_an_error_before_anything_is_claimed(taken: int) -> None:
    said: list[str] = []
    workspace: Any = None  # nothing of it is touched
    with pytest.raises(ConfigError, match=f"port {taken} is in use") as caught:
        serve(workspace, host="127.0.0.1", port=taken, browser=False, ready=said.append)
    assert "--port" in caught.value.hint
    assert said == []


def test_a_port_that_is_free_is_taken_and_0_finds_one() -> None:
    free = _usable_port("127.0.0.1", 0)
    assert free > 0
    assert _usable_port("127.0.0.1", free) == free


def test_a_host_that_nobody_knows_cannot_be_listened_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*name: object, **more: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ConfigError, match="cannot listen on nowhere, port 80: Name"):
        _usable_port("nowhere", 80)


def test_no_request_writes_control_characters_to_the_log() -> None:
    path = "http://x/\x1b]0;owned\x07\x1b[31m\u202etxt\r\nforged line"
    record = logging.LogRecord("nicegui", logging.WARNING, "", 0, "%s not found", (path,), None)
    assert _harmless(record)
    said = record.getMessage()
    assert "forged line not found" in said
    assert said.isprintable()


def test_ctrl_c_says_that_the_studio_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        _stopped(signal.SIGINT, None)
    assert ended.value.code == 130
    assert capsys.readouterr().err == "\nStudio stopped.\n"
