"""Draws a run's progress on stderr."""

from __future__ import annotations

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
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
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
    """One line for what is being done, with a bar where its length is known."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
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
        self._progress.update(
            self._task, description=name, completed=done, total=total or None, note=note
        )

    def waiting(self, message: str, seconds: float) -> None:
        """Say what the server is doing while it starts."""
        self._progress.update(self._task, description=message, total=None, note="")
