"""A rich console on which no text acts on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from llmtagger.terminal import harmless


class Screen(Console):
    """Prints strings as they are, without markup, and spells out what a terminal would act on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of anything printed; those with control codes are the program's own."""
        for segment in super().render(renderable, options):
            if segment.is_control:
                yield segment
            else:
                yield Segment(harmless(segment.text), segment.style)
