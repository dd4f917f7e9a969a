"""How many requests a server is sent at once, found out by its complaints."""

from __future__ import annotations

import math


class Window:
    """Widens by one a round of answers, up to `most`; halves at an overload.

    This is how TCP finds its share of a line: many clients of one server come to equal shares.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = float(most)
        self._halved = -math.inf

    @property
    def size(self) -> int:
        """Requests that may be in flight, 1 at least."""
        return int(self._size)

    def widen(self) -> None:
        """An answer came."""
        self._size = min(self._most, self._size + 1 / self._size)

    def halve(self, sent: float, now: float) -> None:
        """A request that was `sent` then was too much.

        Those sent before the last halving say nothing of the window since.
        """
        if sent >= self._halved:
            self._size = max(1.0, self._size / 2)
            self._halved = now
