"""What is known of the servers that llmtagger runs on this machine: state files and logs."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from llmtagger.backends.folders import state_dir
from llmtagger.backends.vllm_supervisor import family
from llmtagger.errors import EngineError

STOP_TIMEOUT = 20.0  # s


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server on this machine. `pid` is its supervisor's, `started` that process's start."""

    url: str
    model: str
    pid: int
    port: int
    started: float
    log: Path
    persistent: bool
    fingerprint: str
    scratch: Path


def status() -> list[ServerInfo]:
    """The servers of ours that run on this machine; what dead supervisors left is swept up."""
    alive = []
    for path in sorted((state_dir() / "servers").glob("*.json")):
        info = read(path)
        if info is not None and supervisor_of(info) is not None:
            alive.append(info)
        else:
            if info is not None:
                sweep(info)
            path.unlink(missing_ok=True)
    return alive


def log_path(port: int | None = None) -> Path | None:
    """The log of the server at `port`, or the newest one; None where there is none."""
    if port is not None:
        path = state_dir() / "logs" / f"{port}.log"
        return path if path.is_file() else None
    logs = (state_dir() / "logs").glob("*.log")
    return max(logs, key=lambda path: path.stat().st_mtime, default=None)


def sweep(info: ServerInfo) -> None:
    """Ends what a dead supervisor has left, and proves that nothing of it is alive."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while left := [p for p in family(info.pid) if _is_ours(p, info)]:
        if time.monotonic() > deadline:
            pids = ", ".join(str(process.pid) for process in left)
            raise EngineError(
                f"Processes of the server at port {info.port} do not end: {pids}.",
                hint="End them by hand: kill -9 " + pids.replace(",", ""),
            )
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)
    shutil.rmtree(info.scratch, ignore_errors=True)
    state = read(state_file(info.port))
    if state is not None and state.pid == info.pid:
        state_file(info.port).unlink(missing_ok=True)


def _is_ours(process: psutil.Process, info: ServerInfo) -> bool:
    """Guards against a recycled session number: ours run Python or vLLM, and are younger."""
    try:
        words = " ".join([process.name(), *process.cmdline()])
        return process.create_time() >= info.started - 2 and bool(
            re.search("vllm|python", words, re.I)
        )
    except psutil.Error:
        return False


def supervisor_of(info: ServerInfo) -> psutil.Process | None:
    """The living supervisor; a process that only has its number does not count."""
    try:
        process = psutil.Process(info.pid)
        same = abs(process.create_time() - info.started) < 2
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def state_file(port: int) -> Path:
    """The file that says what runs at `port`."""
    return state_dir() / "servers" / f"{port}.json"


def read(path: Path) -> ServerInfo | None:
    """The server that a state file describes; None where it is gone or unreadable."""
    try:
        fields = json.loads(path.read_bytes())
        fields |= {"log": Path(fields["log"]), "scratch": Path(fields["scratch"])}
        return ServerInfo(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None
