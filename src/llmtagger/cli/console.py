"""Where words go: results to stdout, everything else to stderr."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@cache
def stderr() -> Console:
    """The console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


@cache
def stdout() -> Console:
    """The console for results that a person reads."""
    from rich.console import Console

    return Console(highlight=False, emoji=False)  # ":key:" is a product's text
