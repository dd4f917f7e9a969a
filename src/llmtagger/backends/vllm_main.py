"""The program that is vLLM's server, and whose every process dies with its parent.

vLLM's processes outlive a parent that is killed: its engine and workers go on, spinning and
holding gigabytes. Python's multiprocessing imports the main program's file in each process that
it spawns, before anything else is loaded there, so the watch below runs in all of them.
"""

from __future__ import annotations

import os
import runpy
import threading
import time

SERVER = "vllm.entrypoints.openai.api_server"
PARENT = "LLMTAGGER_SUPERVISOR"  # environment variable: the process id that the server hangs on
INTERVAL = 0.5  # s


def die_with_parent(parent: int) -> None:
    """Ends this process within a second of the end of `parent`, whatever else it is doing."""
    threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent-watch").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(INTERVAL)
    os._exit(1)


if __name__ == "__mp_main__":
    die_with_parent(os.getppid())
elif __name__ == "__main__":
    die_with_parent(int(os.environ.get(PARENT) or os.getppid()))
    runpy.run_module(SERVER, run_name="__main__")
