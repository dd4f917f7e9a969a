"""Draws a run's progress on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from rich.console import Console

    from llmtagger.datatypes import TaggedProduct
    from llmtagger.tuning.training import Progress as TrainingProgress

_EVERY = 30.0  # seconds between two lines on the same stage
_EXAMPLES = 100  # results held back for showing


class ProgressReporter:
    """A bar with rate, remaining time, tokens and problems; a plain line where no one watches."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._problems = 0
        self._tokens = 0
        self._done = 0
        self._examples: list[TaggedProduct] = []
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("reading", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def waiting(self, message: str, seconds: float) -> None:
        """Say what the server is doing while it starts."""
        self._progress.update(self._task, description=message, note="")

    def started(self, total: int, done: int) -> None:
        """Set the bar."""
        if done:
            self._console.print(f"Going on after {done} of {total} products.")
        self._progress.update(self._task, total=total, completed=done, description="preparing")

    def finished_one(self, tagged: TaggedProduct) -> None:
        """Advance the bar by one product."""
        self._done += 1
        self._problems += tagged.problem is not None
        if tagged.completion:
            self._tokens += tagged.completion.prompt_tokens + tagged.completion.completion_tokens
        if len(self._examples) < _EXAMPLES:
            self._examples.append(tagged)
        speed = self._progress.tasks[0].speed or 0.0
        note = f"{speed:.1f}/s · {self._tokens:,} tokens · {self._problems} problems"
        self._progress.update(self._task, advance=1, description="tagging", note=note)

    def examples(self, count: int) -> list[TaggedProduct]:
        """Some of the results, for showing."""
        return self._examples[:count]


class StageReporter:
    """One line for what is being done, with a bar where its length is known.

    Where no terminal watches, each new stage is a line of its own, and so is a long one's progress.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._said, self._when = "", 0.0
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def stage(self, name: str, done: int, total: int) -> None:
        """Say what is being done, and how far it is; a total of 0 is unknown."""
        note = f"{done}/{total}" if total else ""
        self._say(name, note)
        self._progress.update(
            self._task, description=name, completed=done, total=total or None, note=note
        )

    def waiting(self, message: str, seconds: float) -> None:
        """Say what the server is doing while it starts."""
        self._say(message, "")
        self._progress.update(self._task, description=message, total=None, note="")

    def _say(self, name: str, note: str) -> None:
        now = self._clock()
        if self._console.is_terminal or (name == self._said and now - self._when < _EVERY):
            return
        self._said, self._when = name, now
        self._console.print(f"{name} {note}".rstrip())


class TrainingReporter:
    """A bar for a training: rate, remaining time, and the loss as it falls."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._losses: list[float] = []
        self._task = self._progress.add_task("tuning", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def report(self, at: TrainingProgress) -> None:
        """One more step is done."""
        self._losses.append(at.loss)
        held = f" · held out {at.held_out:.3f}" if at.held_out is not None else ""
        note = (
            f"{at.tokens / max(at.seconds, 1e-9):,.0f} tokens/s · {at.remaining / 60:.0f} min left"
            f" · loss {sparkline(self._losses)} {at.loss:.3f}{held}"
        )
        self._progress.update(self._task, completed=at.step, total=at.steps, note=note)


def sparkline(values: Sequence[float], width: int = 12) -> str:
    """Values as bars of text, the means of equal parts of them, the highest full.

    >>> sparkline([4.0, 3.0, 2.0, 1.0], width=4)
    '█▆▄▂'
    """
    parts = min(width, len(values))
    edges = [len(values) * part // max(parts, 1) for part in range(parts + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    highest = max(means, default=0.0) or 1.0
    return "".join("▁▂▃▄▅▆▇█"[max(0, round(8 * mean / highest) - 1)] for mean in means)
