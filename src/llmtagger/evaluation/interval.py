"""A measured figure with its 95 % interval, as results.json holds it and the page shows it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the ends of its 95 % interval; both are the figure where none is known."""

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

    def record(self) -> dict[str, float]:
        """For results.json."""
        return {"value": self.value, "low": self.low, "high": self.high}


def points(value: object) -> str:
    """A difference of shares in percentage points, with its sign as print has it; never −0.0.

    >>> points(-0.012), points(-0.0001)
    ('−1.2', '+0.0')
    """
    return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−") if finite(value) else "–"


def finite(value: object) -> TypeGuard[float]:
    """Whether this is a number that can be shown."""
    return isinstance(value, int | float) and math.isfinite(value)
