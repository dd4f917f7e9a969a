"""How fast answers come, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable

_LEAST = 3  # answers before a pace is told
_MINUTE, _HOUR = 60, 3600  # seconds


class Pace:
    """Measured from the first answer on, since that one waits for the server to start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first = self._last = 0.0
        self._answers = 0

    def answered(self) -> None:
        """Count one more answer."""
        self._last = self._clock()
        if not self._answers:
            self._first = self._last
        self._answers += 1

    @property
    def seconds(self) -> float | None:
        """Wall time per answer; None while too few have come."""
        if self._answers < _LEAST:
            return None
        return (self._last - self._first) / (self._answers - 1)


def duration(seconds: float, say: Callable[..., str]) -> str:
    """A time as people say it.

    >>> duration(500, lambda text, **values: text.format(**values))
    'about 8 min'
    """
    if seconds < _MINUTE:
        return say("less than a minute")
    if seconds < _HOUR:
        return say("about {minutes} min", minutes=f"{seconds / _MINUTE:.0f}")
    return say("about {hours} h", hours=f"{seconds / _HOUR:.1f}")
