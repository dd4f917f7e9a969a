"""A lock that is held or refused at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole(path: Path, refusal: Exception) -> Iterator[None]:
    """Hold the lock file at `path`; raises `refusal` where another process holds it.

    >>> with sole(folder / "lock", TuningError("busy", hint="wait")): ...
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise refusal from error
    try:
        yield
    finally:
        lock.release()
