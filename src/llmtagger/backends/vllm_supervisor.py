"""The process between llmtagger and a server: it ends the server whole, whatever happens.

    llmtagger ──lifeline (a pipe)── supervisor ── server ── engine ── worker

A server that dies after it has been up is started again, three times in ten minutes at the most.
Where llmtagger dies, even by SIGKILL, the pipe's end tells the supervisor. Where the supervisor
dies, `vllm_main` in each of the server's processes notices. A supervisor without a lifeline
(`llmtagger engine start`) runs until it is told to stop, or its server dies for good.

    python -m llmtagger.backends.vllm_supervisor STATE RECORD LIFELINE COMMAND...

STATE is the file that says what runs, RECORD its content in JSON, with the scratch folder that is
removed at the end, and the URL; LIFELINE is the number of a file descriptor, or -1.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

GRACE = 6.0  # s that the server has for an orderly end
TRACKER_GRACE = 2.0  # s that Python's resource trackers have to give shared memory back
POLL = 0.2  # s
REVIVALS, WITHIN = 3, 600.0  # deaths in so many seconds, after which the next one is the last
_PR_SET_CHILD_SUBREAPER = 36
_PARENT = "LLMTAGGER_SUPERVISOR"  # the same as vllm_main.PARENT


class _Stay(urllib.request.HTTPRedirectHandler):
    """Whatever sends us elsewhere is no server of ours."""

    def redirect_request(self, *about: object) -> None:
        """None: the redirect is an error."""


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay())  # on loopback


class Supervisor:
    """Runs one command and ends it with all its descendants."""

    def __init__(self, state: Path, record: dict[str, Any], lifeline: int) -> None:
        self._state = state
        self._record = record
        self._lifeline = lifeline
        self._stopped = False
        self._deaths: list[float] = []  # when, by the monotonic clock

    def run(self, command: Sequence[str]) -> int:
        """Runs the command until it ends for good, the lifeline breaks or a signal comes."""
        self._prepare()
        try:
            while True:
                code, was_up = self._run_once(command)
                if self._stopped or not was_up or not self._may_revive():
                    return code
                sys.stdout.write(f"llmtagger: the server ended with {code}; it is started again\n")
                sys.stdout.flush()
        finally:
            self._clean_up()

    def _run_once(self, command: Sequence[str]) -> tuple[int, bool]:
        """The exit code, and whether the server has ever been up."""
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self._environment())
        was_up = False
        while child.poll() is None and not self._must_stop():
            was_up = was_up or is_healthy(self._record["url"])
        return end(child), was_up

    def _may_revive(self) -> bool:
        now = time.monotonic()
        self._deaths = [death for death in self._deaths if now - death < WITHIN] + [now]
        return len(self._deaths) <= REVIVALS

    def _prepare(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._stop)
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        own = {"pid": os.getpid(), "started": psutil.Process().create_time()}
        self._state.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._state.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({**self._record, **own}, indent=1), encoding="utf-8")
        temporary.replace(self._state)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, _PARENT: str(os.getpid())}

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True

    def _must_stop(self) -> bool:
        if self._lifeline < 0:
            time.sleep(POLL)
            return self._stopped
        readable, _, _ = select.select([self._lifeline], [], [], POLL)
        self._stopped = self._stopped or (bool(readable) and os.read(self._lifeline, 1) == b"")
        return self._stopped

    def _clean_up(self) -> None:
        shutil.rmtree(self._record["scratch"], ignore_errors=True)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if json.loads(self._state.read_bytes())["pid"] == os.getpid():
                self._state.unlink()


def is_healthy(url: str) -> bool:
    """Whether the server at `url` says that it is up; it has two seconds to say so."""
    try:
        with _DIRECT.open(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def end(child: subprocess.Popen[bytes]) -> int:
    """Ends the child and everything under this process: orderly first, then by force."""
    with contextlib.suppress(ProcessLookupError):
        child.terminate()
    _wait_for(lambda: child.poll() is not None, GRACE)
    _kill_until_gone(lambda: [p for p in family(os.getpid()) if not _is_tracker(p)])
    _wait_for(lambda: not family(os.getpid()), TRACKER_GRACE)
    _kill_until_gone(lambda: family(os.getpid()))
    code = child.wait()
    with contextlib.suppress(ChildProcessError):  # none is left
        while os.waitpid(-1, 0):  # its orphans came to us; without this they would stay as zombies
            pass
    return code


def family(leader: int) -> list[psutil.Process]:
    """The living processes under or in the session of the process `leader`, without itself."""
    found = {p.pid: p for p in _session(leader)}
    with contextlib.suppress(psutil.NoSuchProcess):
        found |= {p.pid: p for p in psutil.Process(leader).children(recursive=True)}
    return [p for pid, p in found.items() if pid != leader and _is_alive(p)]


def _session(leader: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.NoSuchProcess):
            if os.getsid(pid) == leader:
                yield psutil.Process(pid)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _is_tracker(process: psutil.Process) -> bool:
    try:
        return any("resource_tracker" in word for word in process.cmdline())
    except psutil.Error:
        return False


def _kill_until_gone(members: Callable[[], list[psutil.Process]]) -> None:
    while alive := members():  # again: one may have been spawning another
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=1)


def _wait_for(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


if __name__ == "__main__":
    _state, _record, _lifeline, *_command = sys.argv[1:]
    _supervisor = Supervisor(Path(_state), json.loads(_record), int(_lifeline))
    sys.exit(_supervisor.run(_command))
