"""A training's losses as TensorBoard events, for those who watch many trainings in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from llmtagger.errors import TuningError
from llmtagger.tuning.training import Progress


class EventLog:
    """Writes one event file into a folder; use it with `with`.

    Raises `TuningError` where the package that writes such files is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise TuningError(
                "tensorboardX is not installed, so no events can be written",
                hint="pip install 'llmtagger[tensorboard]', or leave --events out",
            ) from error
        self._writer: Any = SummaryWriter(str(folder))
        self._held_out: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def report(self, at: Progress) -> None:
        """One more step is done; the held-out loss is written when it is a new one."""
        self._writer.add_scalar("loss/train", at.loss, at.step)
        if at.held_out is not None and at.held_out != self._held_out:
            self._held_out = at.held_out
            self._writer.add_scalar("loss/held_out", at.held_out, at.step)
        self._writer.add_scalar("tokens_per_second", at.tokens / max(at.seconds, 1e-9), at.step)
