"""Results of work in a thread, one by one, for a page."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class _Done:
    """Ends a stream."""


async def streamed(
    work: Callable[[], Iterator[Item]], stop: threading.Event
) -> AsyncIterator[Item]:
    """The items of `work()` as they come, computed in a thread of their own.

    After `stop` is set no further item is asked for. What `work` raises is raised here.
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
    while not isinstance(what := await queue.get(), _Done):
        if isinstance(what, BaseException):
            raise what
        yield what
