"""Those who wait for the model's server to start: any number of browser tabs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmtagger.errors import EngineCancelled

if TYPE_CHECKING:
    from llmtagger.asking import Waiting


class Watchers:
    """Passes progress on to everyone who waits now.

    A watcher gives up by raising `EngineCancelled`. The start goes on for the others, and is
    cancelled when the last one gives up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []

    @contextmanager
    def watched_by(self, waiting: Waiting) -> Iterator[None]:
        """Tell `waiting` how far the start is while the block runs."""
        with self._lock:
            self._waiting.append(waiting)
        try:
            yield
        finally:
            with self._lock:
                self._waiting.remove(waiting)

    def __call__(self, message: str, seconds: float) -> None:
        """Report progress; `EngineCancelled` where everyone has given up."""
        with self._lock:
            waiting = list(self._waiting)
        given_up = []
        for each in waiting:
            try:
                each(message, seconds)
            except EngineCancelled as error:
                given_up.append(error)
        if given_up and len(given_up) == len(waiting):
            raise given_up[0]
