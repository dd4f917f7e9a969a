"""A lock that is held or refused at once."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sole(path: Path, refusal: Exception, *, mode: int = 0o644) -> Iterator[None]:
    """Hold `path`, a folder or a file; raises `refusal` where another process holds it.

    A missing file is made with these permissions. The lock ends with the process that holds it.
    In a folder nothing is written.

    >>> with sole(folder / "lock", TuningError("busy", hint="wait")): ...
    """
    how = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, how | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise refusal from error
    else:
        yield
    finally:
        os.close(handle)
