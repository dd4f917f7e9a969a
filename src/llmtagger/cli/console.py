"""Where words go: results to stdout, everything else to stderr; all of it harmless."""

from __future__ import annotations

import json
import logging
import sys
from functools import cache
from string import Formatter
from typing import TYPE_CHECKING, Any

from llmtagger.terminal import harmless, one_line

if TYPE_CHECKING:
    from rich.text import Text

    from llmtagger.cli.screen import Screen


@cache
def stderr() -> Screen:
    """The console for progress, notes and errors."""
    from llmtagger.cli.screen import Screen

    return Screen(stderr=True, soft_wrap=True)


@cache
def stdout() -> Screen:
    """The console for results that a person reads."""
    from llmtagger.cli.screen import Screen

    return Screen()


def marked(template: str, *values: object, **named: object) -> Text:
    r"""A text with rich's markup in the template, and none in the values put into it.

    >>> marked("[bold]{}[/]: {:.1f} points", "[red]", 1.26).markup
    '[bold]\\[red][/bold]: 1.3 points'
    """
    from rich.text import Text

    holes = _Holes()
    text = Text.from_markup(holes.vformat(template, values, named), emoji=False)
    places = [at for at, character in enumerate(text.plain) if character == _HOLE]
    parts = text.divide(edge for at in places for edge in (at, at + 1))
    said = Text()
    for number, part in enumerate(parts):
        if number % 2:  # rich's own way of escaping fails at backslashes
            said.append_text(_filled(part, holes.values[number // 2]))
        else:
            said.append_text(part)
    return said


_HOLE = "\0"


class _Holes(Formatter):
    """Formats a template with holes for the values, which are kept for later."""

    def __init__(self) -> None:
        self.values: list[str] = []

    def format_field(self, value: Any, format_spec: str) -> str:
        self.values.append(one_line(super().format_field(value, format_spec)))
        return _HOLE


def _filled(hole: Text, value: str) -> Text:
    from rich.text import Text

    filled = Text(value, hole.style)
    for span in hole.spans:
        filled.stylize(span.style)
    return filled


def write(text: str) -> None:
    """Text for stdout as it is: no wrapping, no colours."""
    sys.stdout.write(harmless(text))


def write_json(record: Any, indent: int | None = None) -> None:
    """A record as JSON for stdout, on one line or indented."""
    write(json.dumps(record, ensure_ascii=False, indent=indent, default=str) + "\n")


def log_to_stderr(*, verbose: bool) -> None:
    """Print what llmtagger warns of; if `verbose`, all that it logs, with the time since start."""
    logger = logging.getLogger("llmtagger")
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.handlers = [_Handler()]


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            stderr().print(marked("[yellow]Note:[/] ").append(record.getMessage()))
        else:
            seconds = f"{record.relativeCreated / 1000:7.1f} s  "
            stderr().print(seconds + record.getMessage(), style="dim")


def complain(text: str) -> None:
    """Text for stderr from where no console may be used: a crash, a signal, wrong usage."""
    sys.stderr.write(harmless(text))
    sys.stderr.flush()
