"""Results of work in a thread, one by one, for a page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_LOOK = 0.1  # seconds between two looks at `stop`
_GRACE = 2.0  # seconds


class _Done:
    """Ends a stream."""


async def streamed(
    work: Callable[[], Iterator[Item]], stop: threading.Event
) -> AsyncIterator[Item]:
    """The items of `work()` as they come, computed in a thread of their own.

    After `stop` is set no further item is asked for, and one that is under way is waited for
    `_GRACE` seconds; the thread ends when it comes. What `work` raises before is raised here.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Item | _Done | BaseException] = asyncio.Queue()

    def put(what: Item | _Done | BaseException) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(queue.put_nowait, what)

    def run() -> None:
        try:
            items = work()
            for item in items:
                put(item)
                if stop.is_set():
                    if isinstance(items, Generator):
                        items.close()
                    break
            put(_Done())
        except BaseException as error:  # a thread has nobody else to tell
            put(error)

    threading.Thread(target=run, name="studio", daemon=True).start()
    while not isinstance(what := await _next(queue, stop), _Done):
        if isinstance(what, BaseException):
            raise what
        yield what


async def _next(
    queue: asyncio.Queue[Item | _Done | BaseException], stop: threading.Event
) -> Item | _Done | BaseException:
    """What comes next; the end where nothing comes for a while after `stop`."""
    stopped = 0.0
    while True:
        try:
            return await asyncio.wait_for(queue.get(), _LOOK)
        except TimeoutError:
            stopped += _LOOK if stop.is_set() else 0.0
            if stopped >= _GRACE:
                return _Done()
