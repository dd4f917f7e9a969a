"""A measured figure with its 95 % interval, as results.json holds it and the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the ends of its 95 % interval.

    Both ends are NaN where they are not known, for example because there are too few products. One
    that is read from a record then has the figure itself as both ends, so that it can be drawn.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, raw: Mapping[str, Any] | float | None, scale: float = 1.0) -> Interval | None:
        """From a `record` or a bare number; None if it was not measured."""
        if raw is None:
            return None
        parts = [raw["value"], raw["low"], raw["high"]] if isinstance(raw, Mapping) else [raw] * 3
        if parts[1] is None and parts[2] is None:
            parts = [parts[0]] * 3
        if not all(finite(part) for part in parts):
            return None
        return cls(*(float(part) * scale for part in parts))

    @property
    def is_known(self) -> bool:
        """Whether it has ends."""
        return finite(self.low) and finite(self.high)

    def record(self) -> dict[str, Any]:
        """For results.json; ends that are not known are null."""
        low, high = (self.low, self.high) if self.is_known else (None, None)
        return {"value": self.value, "low": low, "high": high}


def points(value: object) -> str:
    """A difference of shares in percentage points, with its sign as print has it; never −0.0.

    >>> points(-0.012), points(-0.0001)
    ('−1.2', '+0.0')
    """
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−") if finite(value) else "–"


def finite(value: object) -> TypeGuard[float]:
    """Whether this is a number that can be shown."""
    return isinstance(value, int | float) and math.isfinite(value)
