"""Starts vLLM servers on this machine, finds those that run, and stops them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
from filelock import FileLock

from llmtagger.backends.folders import state_dir
from llmtagger.backends.models import Model
from llmtagger.backends.vllm_command import check_memory, plan_server
from llmtagger.backends.vllm_log import explain, phase
from llmtagger.backends.vllm_state import (
    STOP_TIMEOUT,
    ServerInfo,
    log_path,
    state_file,
    status,
    supervisor_of,
    sweep,
)
from llmtagger.backends.vllm_supervisor import is_healthy
from llmtagger.errors import EngineStartError

__all__ = ["ServerInfo", "log_path", "serving", "start", "status", "stop"]

Progress = Callable[[str, float], None]
START_TIMEOUT = 600.0  # s; a large model from a cold disk takes minutes


@contextlib.contextmanager
def serving(model: Model, *, port: int | None = None, progress: Progress) -> Iterator[ServerInfo]:
    """A server of `model` while the block runs: one of `engine start` where there is one."""
    running = _find_running(model, port)
    if running is not None:
        _wait_until_healthy(running, None, progress)
        yield running
        return
    lifeline, ours = os.pipe()
    try:
        info, supervisor = _launch(model, port, lifeline)
        os.close(lifeline)
        try:
            _wait_until_healthy(info, supervisor, progress)
            yield info
        finally:
            os.close(ours)
            ours = -1
            _wait_for_end(info, supervisor)
    finally:
        if ours >= 0:
            os.close(ours)


def start(model: Model, *, port: int | None = None, progress: Progress) -> ServerInfo:
    """Starts a server that stays when this process ends; one of the same model is kept as is."""
    running = _find_running(model, port)
    if running is not None:
        _wait_until_healthy(running, None, progress)
        return running
    info, supervisor = _launch(model, port, None)
    try:
        _wait_until_healthy(info, supervisor, progress)
    except BaseException:
        _end(info)
        raise
    supervisor.returncode = 0  # it outlives us by wish, which subprocess would warn of
    return info


def stop() -> list[ServerInfo]:
    """Ends every server of `engine start`, whole, and says which."""
    ended = [info for info in status() if info.persistent]
    for info in ended:
        _end(info)
    return ended


def _find_running(model: Model, port: int | None) -> ServerInfo | None:
    for info in status():
        same = info.persistent and info.fingerprint == model.fingerprint
        if same and port in (None, info.port):
            return info
    return None


def _launch(
    model: Model, port: int | None, lifeline: int | None
) -> tuple[ServerInfo, subprocess.Popen[bytes]]:
    (state_dir() / "logs").mkdir(parents=True, exist_ok=True)
    with FileLock(state_dir() / "launch.lock"):
        port = _free_port(port)
        scratch = _scratch()
        try:
            return _launch_at(model, port, lifeline, scratch)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise


def _scratch() -> Path:
    """A folder for the server's temporary files and sockets.

    The path of a socket holds 107 bytes, of which vLLM takes 37 for its name.
    """
    parent = tempfile.gettempdir()
    fits = len(os.fsencode(parent)) + len("/llmtagger-12345678") <= 107 - 37
    return Path(tempfile.mkdtemp(prefix="llmtagger-", dir=parent if fits else "/tmp"))


def _launch_at(
    model: Model, port: int, lifeline: int | None, scratch: Path
) -> tuple[ServerInfo, subprocess.Popen[bytes]]:
    plan = plan_server(model, port, scratch)
    check_memory(plan, model)
    log = state_dir() / "logs" / f"{port}.log"
    info = ServerInfo(
        url=f"http://127.0.0.1:{port}",
        model=model.name,
        pid=0,
        port=port,
        started=0.0,
        log=log,
        persistent=lifeline is None,
        fingerprint=model.fingerprint,
        scratch=scratch,
    )
    supervisor = spawn(info, plan.command, dict(plan.environment), lifeline)
    return _as_running(info, supervisor), supervisor


def spawn(
    info: ServerInfo, command: tuple[str, ...], environment: dict[str, str], lifeline: int | None
) -> subprocess.Popen[bytes]:
    """Runs `command` under a supervisor in a session of its own, so that Ctrl-C spares it."""
    record = json.dumps(asdict(info), default=str)
    number = "-1" if lifeline is None else str(lifeline)
    program = [sys.executable, "-m", "llmtagger.backends.vllm_supervisor"]
    with info.log.open("wb") as log:
        return subprocess.Popen(
            [*program, str(state_file(info.port)), record, number, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=() if lifeline is None else (lifeline,),
            start_new_session=True,
        )


def _as_running(info: ServerInfo, supervisor: subprocess.Popen[bytes]) -> ServerInfo:
    try:
        started = psutil.Process(supervisor.pid).create_time()
    except psutil.NoSuchProcess:
        started = time.time()
    return replace(info, pid=supervisor.pid, started=started)


def _free_port(port: int | None) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise EngineStartError(
                f"Port {port} cannot be used: {error.strerror}.",
                hint="Choose another with --port, or leave it out to get a free one. `llmtagger"
                " engine status` shows servers of ours.",
            ) from error
        return int(probe.getsockname()[1])


def _wait_until_healthy(
    info: ServerInfo, supervisor: subprocess.Popen[bytes] | None, progress: Progress
) -> None:
    begun = time.monotonic()
    while not is_healthy(info.url):
        waited = time.monotonic() - begun
        if _has_ended(info, supervisor):
            raise explain(info.log, info.model)
        if waited > START_TIMEOUT:
            raise EngineStartError(
                f"The server did not come up within {START_TIMEOUT:.0f} s.",
                hint=f"Its log may say why: {info.log}",
            )
        progress(phase(info.log), waited)
        time.sleep(1)
    progress("ready", time.monotonic() - begun)


def _has_ended(info: ServerInfo, supervisor: subprocess.Popen[bytes] | None) -> bool:
    if supervisor is not None:
        return supervisor.poll() is not None
    return supervisor_of(info) is None


def _wait_for_end(info: ServerInfo, supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    sweep(info)


def _end(info: ServerInfo) -> None:
    supervisor = supervisor_of(info)
    if supervisor is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            supervisor.terminate()
        _, alive = psutil.wait_procs([supervisor], timeout=STOP_TIMEOUT)
        for process in alive:
            process.kill()
    sweep(info)
