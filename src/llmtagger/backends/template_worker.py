"""Fills templates in a process of its own, with a limit of time and memory.

Jinja's sandbox keeps a template from Python's internals, not from taking all memory or for ever.
The process holds nothing but the text of one product; it is ended and replaced when it takes too
long, by its own processor time: on a busy machine an honest template waits longer than it works.
Both sides speak JSON, a line a message.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Self

from llmtagger.errors import PromptError
from llmtagger.sandbox import Fill, Messages, filling
from llmtagger.templates import TemplateFile

SECONDS = 1.0  # of processor time, for one product
_PATIENCE = 30.0  # seconds for one product on a machine that gives it no time
_START = 30.0  # seconds for a new process to be there, on a machine that is busy
_MEMORY = 512 << 20  # bytes that it may take beyond what it starts with


class TemplateWorker:
    """Starts at the first template, and again after one that was too much. Any thread may ask."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._source = ""  # of the template that the process has compiled
        self._worked = 0.0  # seconds of processor time, up to its last answer
        self._owner = 0  # the process that started it: a fork of it must not speak to it, too
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._end()

    def filling(self, template: TemplateFile) -> Fill:
        """As `sandbox.filling`, within the limits; `PromptError` also where they are passed."""
        self._ask(template, None)

        def fill(values: Mapping[str, Any]) -> Messages:
            return tuple((role, text) for role, text in self._ask(template, values))

        return fill

    def _ask(self, template: TemplateFile, values: Mapping[str, Any] | None) -> list[list[str]]:
        question: dict[str, Any] = {"name": template.name, "values": values}
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            if template.source != self._source:
                question["source"] = template.source
            try:
                process.stdin.write(json.dumps(question).encode() + b"\n")
                process.stdin.flush()
                answer = self._worked_out(process)
            except (OSError, ValueError) as error:
                self._end()
                raise PromptError(
                    f"the prompt {template.name} takes too much memory", hint="make it simpler"
                ) from error
            if answer is None:
                self._end()
                raise PromptError(
                    f"the prompt {template.name} takes longer than {self._seconds:g} s to render",
                    hint="take out loops in loops",
                )
            self._source = "" if "error" in answer else template.source
        if "error" in answer:
            raise PromptError(answer["error"], hint=answer["hint"])
        found: list[list[str]] = answer["messages"]
        return found

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner != os.getpid():
            self._process, self._source = None, ""
        if self._process is not None and self._process.poll() is not None:
            self._end()  # somebody else ended it
        return self._process or self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._owner = os.getpid()
        try:
            ready = self._answer(self._process, _START)
        except ValueError:
            ready = None
        if ready is None:
            self._end()
            raise PromptError("the process that fills templates did not start", hint="try again")
        return self._process

    def _worked_out(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """What it says to a question; None where that takes too much of its own time."""
        before = self._worked
        began, left = time.monotonic(), self._seconds
        while left > 0 and time.monotonic() - began < _PATIENCE:
            answer = self._answer(process, left)
            if answer is not None:
                return answer
            left = self._seconds - (_processor_time(process.pid) - before)
        return None

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """What it says next; None where that takes too long, `ValueError` where it has ended."""
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], seconds)[0]:
            return None
        line = process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        self._worked = answer["worked"]
        return answer

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._source = ""


@cache
def shared_worker() -> TemplateWorker:
    """The one of this process, which ends with it."""
    worker = TemplateWorker()
    atexit.register(worker.__exit__)
    return worker


def _processor_time(pid: int) -> float:
    """Seconds that a process has worked."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()  # its name, before that, may hold anything
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _limit_memory() -> None:
    import resource

    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + _MEMORY,) * 2)


def _serve() -> None:
    """Answer until the parent closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends this
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed must not look like an answer
    _limit_memory()
    fill: Fill | None = None

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps({**answer, "worked": time.process_time()}).encode() + b"\n")
        answers.flush()

    say({"ready": True})
    for line in sys.stdin.buffer:
        question = json.loads(line)
        try:
            if "source" in question:
                fill = filling(TemplateFile(question["name"], question["source"]))
            values = question["values"]
            assert fill is not None  # the first question, and any after an error, has a source
            say({"messages": [] if values is None else fill(values)})
        except PromptError as error:
            say({"error": error.message, "hint": error.hint})
        except (MemoryError, RecursionError):
            say(
                {
                    "error": f"the prompt {question['name']} takes too much memory",
                    "hint": "make it simpler",
                }
            )


if __name__ == "__main__":
    _serve()
