"""Work in a thread, item by item."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from llmtagger.studio.streaming import streamed


def collected(
    work: Callable[[], Iterator[int]],
    stop: threading.Event | None = None,
    seen: Callable[[int], None] = lambda item: None,
) -> list[int]:
    async def collect() -> list[int]:
        found = []
        async for item in streamed(work, stop or threading.Event()):
            seen(item)
            found.append(item)
        return found

    return asyncio.run(asyncio.wait_for(collect(), 30))


def test_all_items_come_in_order() -> None:
    assert collected(lambda: iter(range(2000))) == list(range(2000))
    assert collected(lambda: iter(())) == []


def test_each_comes_before_the_next_is_there() -> None:
    gate = threading.Semaphore(1)

    def work() -> Iterator[int]:
        for number in range(5):
            assert gate.acquire(timeout=10)
            yield number

    assert collected(work, seen=lambda item: gate.release()) == [0, 1, 2, 3, 4]


def test_the_work_is_done_in_another_thread() -> None:
    threads = set[int]()

    def work() -> Iterator[int]:
        threads.add(threading.get_ident())
        yield 1

    assert collected(work) == [1]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_what_the_work_raises_is_raised_after_its_items() -> None:
    def work() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("no")

    seen: list[int] = []
    with pytest.raises(KeyError, match="no"):
        collected(work, seen=seen.append)
    assert seen == [1, 2]


def test_work_that_cannot_begin_is_an_error() -> None:
    def work() -> Iterator[int]:
        raise KeyError("at once")

    with pytest.raises(KeyError, match="at once"):
        collected(work)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_thread_ends_the_stream(error: type[BaseException]) -> None:
    def work() -> Iterator[int]:
        yield 1
        raise error

    async def collect() -> type[BaseException] | None:
        try:
            async for _ in streamed(work, threading.Event()):
                pass
        except BaseException as caught:
            return type(caught)
        return None

    assert asyncio.run(asyncio.wait_for(collect(), 30)) is error


def test_after_stop_the_generator_is_closed_and_nothing_is_lost() -> None:
    stop, closed = threading.Event(), threading.Event()
    made: list[int] = []

    def work() -> Iterator[int]:
        try:
            for number in range(1000):
                made.append(number)
                if number == 3:
                    stop.set()
                yield number
        finally:
            closed.set()

    assert collected(work, stop) == made == [0, 1, 2, 3]
    assert closed.is_set()


def test_an_item_that_arrives_after_stop_is_kept_and_the_last() -> None:
    """An answer that was under way when somebody cancelled has been paid for."""
    stop, under_way = threading.Event(), threading.Event()
    made: list[int] = []

    def work() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            if number == 1:
                assert under_way.wait(10)
            yield number

    def seen(item: int) -> None:
        if item == 0:
            stop.set()
            under_way.set()

    found = collected(work, stop, seen)
    assert found == made
    assert found in ([0], [0, 1])  # [0] where the event was set before the thread looked at it


def test_stop_before_the_first_item() -> None:
    stop = threading.Event()
    stop.set()
    made: list[int] = []

    def work() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    assert collected(work, stop) == made == [0]


def test_stop_does_not_wait_for_an_item_that_does_not_come() -> None:
    """As while a server starts. The thread ends on its own later."""
    stop, gate = threading.Event(), threading.Event()

    def work() -> Iterator[int]:
        yield 1
        stop.set()
        gate.wait(60)
        yield 2

    begun = time.monotonic()
    assert collected(work, stop) == [1]
    assert time.monotonic() - begun < 20
    gate.set()


def test_an_iterator_that_cannot_be_closed_stops_as_well() -> None:
    stop = threading.Event()
    stop.set()
    assert collected(lambda: iter([1, 2, 3]), stop) == [1]


def test_a_page_that_has_gone_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    """The loop is closed while the thread still works."""
    gone, done = threading.Event(), threading.Event()

    def work() -> Iterator[int]:
        yield 1
        assert gone.wait(10)
        yield 2
        done.set()

    async def leave() -> None:
        items = streamed(work, threading.Event())
        assert await anext(items) == 1

    asyncio.run(leave())
    gone.set()
    assert done.wait(10)
    for thread in threading.enumerate():
        if thread.name == "studio":
            thread.join(10)
    assert capfd.readouterr().err == ""
