"""Writes docs/cli.md from the commands' own --help; with --check, fails if it is out of date."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command
from typer.testing import CliRunner

from llmtagger.cli import app
from llmtagger.cli.exits import ExitCode

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Commands

<!-- Written by `make docs` from each command's --help. -->

Results go to stdout, logs and progress to stderr; `-` is stdin or stdout.

| exit code | meaning |
|---|---|
"""
_TERMINAL = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "FORCE_COLOR": ""}


def reference() -> str:
    """The page: a section for every command, in the order in which --help lists them."""
    codes = "".join(f"| {code.value} | {code.meaning} |\n" for code in ExitCode)
    return "\n".join([HEAD + codes, *sections()])


def sections() -> Iterator[str]:
    """The help of each command under its name."""
    for path in commands(get_command(app), ()):
        title = " ".join(("llmtagger", *path))
        yield f"## {title}\n\n```text\n{help_of(path)}\n```\n"


def commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """A command's words, and those of all under it."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def help_of(path: Sequence[str]) -> str:
    """What `llmtagger ... --help` prints on a terminal of 80 columns."""
    done = CliRunner().invoke(app, [*path, "--help"], prog_name="llmtagger", env=_TERMINAL)
    if done.exit_code:
        raise SystemExit(f"llmtagger {' '.join(path)} --help failed:\n{done.output}")
    lines = (line.rstrip() for line in done.output.splitlines())
    return "\n".join(lines).strip("\n")


def main(arguments: Sequence[str]) -> int:
    """0 if the page is as it should be, or has been written."""
    text = reference()
    if "--check" not in arguments:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write("docs/cli.md is out of date: make docs\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
