"""Runs what documentation pages show, so that no page shows what does not work.

    python tools/run_docs.py README.md docs/tutorial.md --endpoint http://127.0.0.1:8000

Blocks marked `console` (their lines that begin with `$ `) and `python` are run, in the order of the
page, in a folder with a copy of the examples; blocks with any other mark are only shown. Commands
that ask a model ask the server at --endpoint.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = ("console", "python")
NEW = 8  # products in new.csv: enough to show, and soon tagged
TIMEOUT = 900  # s for the blocks of one language in a row; a model on two cores takes its time

# Makes `llmtagger tag` ask the server that is already up.
_SHELL = """
llmtagger() {
    case " $* " in
        *" --endpoint "* | *" --dry-run "*) command llmtagger "$@" ;;
        " tag "*) command llmtagger "$@" ${ENDPOINT:+--endpoint "$ENDPOINT"} ;;
        *) command llmtagger "$@" ;;
    esac
}
"""


def pages() -> list[Path]:
    """Every page of the project, from its root."""
    found = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(p for p in found if not any(part.startswith((".", "out")) for part in p.parts))


class DocsError(Exception):
    """A page that cannot be read, or a block of it that fails."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its mark and text, and the line of the page on which the text begins."""

    mark: str
    line: int
    text: str


def read_blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    blocks: list[Block] = []
    opened: tuple[int, str] | None = None
    body = ""
    for number, line in enumerate(page.splitlines(keepends=True), start=1):
        fence = re.match(r"\s*```(\w*)", line)
        if opened is None:
            opened, body = ((number, fence[1]), "") if fence else (None, "")
        elif fence and not fence[1]:
            blocks.append(Block(opened[1], opened[0] + 1, body))
            opened = None
        else:
            body += line
    if opened is not None:
        raise DocsError(f"the block of line {opened[0]} has no end")
    return blocks


def runnable(page: str) -> list[Block]:
    """The blocks that are run."""
    return [block for block in read_blocks(page) if block.mark in RUN]


def needs_model(page: str) -> bool:
    """Whether any command of the page asks a model."""
    return any(
        re.search(r"^\$ llmtagger tag ", block.text, re.MULTILINE) for block in runnable(page)
    )


def shell_script(block: Block) -> str:
    """The commands of a console block, without what they print."""
    commands, goes_on = "", False
    for line in block.text.splitlines(keepends=True):
        if goes_on or line.startswith("$ "):
            commands += line if goes_on else line[2:]
            goes_on = line.rstrip().endswith("\\")
    return commands


def python_script(blocks: Iterable[Block]) -> str:
    """Blocks as one program, in which each line has the number that it has on the page."""
    script = ""
    for block in blocks:
        script += "\n" * (block.line - 1 - script.count("\n")) + block.text
    return script


def prepare(folder: Path) -> None:
    """What pages take for granted: the examples, as JSONL and as your own CSV, and a `.venv`."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    for name, most in (("catalogue", None), ("new", NEW)):
        _write_csv(folder / "examples" / f"{name}.jsonl", folder / f"{name}.csv", most)
    activate = folder / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()


def _write_csv(source: Path, target: Path, most: int | None) -> None:
    lines = source.read_text(encoding="utf-8").splitlines()[:most]
    records = [json.loads(line) for line in lines]
    names = ("id", "title", "description", "brand", "category", "tags")
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for record in records:
            cells = {**record, "tags": ", ".join(record.get("tags") or ())}
            writer.writerow([cells.get(name, "") for name in names])


def run_page(name: str, page: str, folder: Path, endpoint: str = "") -> None:
    """Run a page's blocks in `folder`; a failure names the page and quotes the last words."""
    for mark, group in itertools.groupby(runnable(page), key=lambda block: block.mark):
        blocks = list(group)
        if mark == "python":
            script = folder / Path(name).name
            script.write_text(python_script(blocks), encoding="utf-8")
            command = [sys.executable, str(script)]
        else:
            command = ["bash", "-euxc", _SHELL + "".join(map(shell_script, blocks))]
        _run(command, folder, endpoint, f"{name}, line {blocks[0].line}")


def _run(command: Sequence[str], folder: Path, endpoint: str, where: str) -> None:
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": programs, "ENDPOINT": endpoint},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if done.returncode:
        words = "\n".join(done.stderr.splitlines()[-20:])
        raise DocsError(f"{where}: exit {done.returncode}\n{words}")


def main(arguments: Sequence[str]) -> int:
    """Run the pages that are named, each in a folder of its own."""
    parser = argparse.ArgumentParser(description="Run what documentation pages show.")
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--endpoint", default="", help="the server that a model is asked at")
    chosen = parser.parse_args(arguments)
    for page in chosen.pages:
        with tempfile.TemporaryDirectory() as folder:
            prepare(Path(folder))
            run_page(str(page), page.read_text(encoding="utf-8"), Path(folder), chosen.endpoint)
        sys.stderr.write(f"{page}: ok\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DocsError as failure:
        sys.exit(str(failure))
