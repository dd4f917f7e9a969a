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

    from llmtagger.catalog import Understood
    from llmtagger.datatypes import TaggedProduct
    from llmtagger.tuning.training import Progress as TrainingProgress

_EVERY = 30.0  # seconds between two lines on the same stage
_EXAMPLES = 100  # results held back for showing
_FIRST_SECONDS, _FIRST_PRODUCTS = 5.0, 5  # what an estimate goes by at the least
_SOON = 20.0  # seconds that are not worth an estimate
_UNITS = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"))
_TIMES = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


class ProgressReporter:
    """A bar with rate, remaining time, tokens and problems; a plain line where no one watches."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._problems = 0
        self._tokens = 0
        self._done = 0
        self._examples: list[TaggedProduct] = []
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=14),  # so that all fits into 80 columns
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=True,
        )
        self._first: float | None = None  # when the first product was finished
        self._left = 0
        self._estimated = False
        self._task = self._progress.add_task("reading", total=None, note="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def understood(self, understood: Understood) -> None:
        """Say how the input was read."""
        self._console.print(f"{understood}.")

    def waiting(self, message: str, seconds: float) -> None:
        """Say what the server is doing while it starts."""
        self._progress.update(self._task, description=message, note="")

    def started(self, total: int, done: int) -> None:
        """Set the bar."""
        if done:
            self._console.print(f"Resuming after {done} of {total} products.")
        self._progress.update(self._task, total=total, completed=done, description="preparing")
        self._left = total - done

    def finished_one(self, tagged: TaggedProduct) -> None:
        """Advance the bar by one product."""
        self._done += 1
        self._problems += tagged.problem is not None
        if tagged.completion:
            self._tokens += tagged.completion.prompt_tokens + tagged.completion.completion_tokens
        if len(self._examples) < _EXAMPLES:
            self._examples.append(tagged)
        self._progress.update(self._task, advance=1, description="tagging", note=self._note())
        self._estimate()

    def _note(self) -> str:
        speed = self._progress.tasks[0].speed or 0.0
        tokens = f" · {brief(self._tokens)} of ~{brief(self._all_tokens())} tokens"
        problems = f" · {self._problems} failed"
        return f"{speed:.1f}/s" + tokens * bool(self._tokens) + problems * bool(self._problems)

    def _all_tokens(self) -> float:
        """Tokens of all products that are tagged now, going by those that are done."""
        return self._tokens / self._done * self._left

    def _estimate(self) -> None:
        """Say once how long the rest takes, after the first seconds, if that is a while.

        The clock starts at the first product, because the start of a server may take minutes.
        """
        if self._first is None:
            self._first = self._clock()
        spent, done = self._clock() - self._first, self._done - 1
        if self._estimated or spent < _FIRST_SECONDS or done < _FIRST_PRODUCTS:
            return
        self._estimated = True
        left = self._left - self._done
        seconds = spent / done * left
        if seconds > _SOON:
            tokens = f" and {brief(self._all_tokens())} tokens in all" if self._tokens else ""
            self._console.print(
                f"About {duration(seconds)} for the {left:,} products left{tokens}, "
                f"based on the first {self._done:,}."
            )

    def finish(self) -> None:
        """Take the bar away, so that something else can be shown."""
        self._progress.stop()

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


def brief(number: float) -> str:
    """A number in at most five characters.

    >>> brief(712), brief(1234), brief(96_000), brief(3_400_000)
    ('712', '1.2k', '96k', '3.4M')
    """
    size, unit = next(((s, u) for s, u in _UNITS if number >= s), (1, ""))
    scaled = number / size
    return f"{scaled:.1f}{unit}" if unit and scaled < 9.95 else f"{scaled:.0f}{unit}"


def duration(seconds: float) -> str:
    """A time in its largest useful unit.

    >>> duration(0.4), duration(75), duration(130), duration(7_000)
    ('1 second', '75 seconds', '2 minutes', '117 minutes')
    """
    size, unit = next(((s, u) for s, u in _TIMES if seconds >= 2 * s), (1, "seconds"))
    count = max(1, round(seconds / size))
    return f"{count} {unit if count > 1 else unit[:-1]}"


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
