"""Every command that reads and writes files refuses to write over what it reads, before it reads.

The index that the commands name does not exist: whoever looks for it first says so instead.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmtagger.cli import app
from llmtagger.errors import ConfigError, LlmtaggerError

PRODUCT = '{"id": "1", "title": "Mug", "tags": ["mug"]}\n'
RUN = 'dataset = "card"\n'
CARD = 'title = "t"\nlicence = "l"\nfile = "data.jsonl"\nkind = "closed"\n'

OVERWRITTEN = {
    "tag": "tag in.jsonl -i none -o in.jsonl",
    "tag-by-a-link": "tag in.jsonl -i none -o link.jsonl",
    "tag-rejects": "tag out.jsonl.rejects.jsonl -i none -o out.jsonl",
    "tag-rejects-of-stdout": "tag rejects.jsonl -i none -o -",
    "tag-journal": "tag in.jsonl -i none -o journalled.jsonl",
    "index-build": "index build in.jsonl none.rejects.jsonl -o none",
    "index-build-vocabulary": "index build in.jsonl --vocabulary none.rejects.jsonl -o none",
    "index-add": "index add none none.rejects.jsonl",
    "gold-export": "gold export book.csv -i none",
    "gold-import": "gold import link.csv -i none",
    "eval-run": "eval run run.toml -o card",
    "eval-compare": "eval compare a b -o a/report.html",
    "prompt-try": "prompt try tag.v1 in.jsonl -i none --report link.html",
}
IMPOSSIBLE = {
    "tag-suffix": "tag in.jsonl -i none -o out.docx",
    "tag-folder": "tag in.jsonl -i none -o card",
    "tag-in-a-file": "tag in.jsonl -i none -o in.jsonl/out.jsonl",
    "index-build-file": "index build in.jsonl -o rejects.jsonl",
    "gold-export-suffix": "gold export gold.docx -i none",
    "gold-export-folder": "gold export card/none.csv/gold.csv -i none",
    "eval-run-file": "eval run run.toml -o in.jsonl",
    "eval-compare-suffix": "eval compare a b -o report.csv",
    "prompt-try-suffix": "prompt try tag.v1 in.jsonl -i none --report report.csv",
    "tune-events": "tune -i none --events in.jsonl",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with files of every kind, and links to them."""
    monkeypatch.chdir(tmp_path)
    for name in ("in.jsonl", "out.jsonl.rejects.jsonl", "rejects.jsonl", "none.rejects.jsonl"):
        Path(name).write_text(PRODUCT)
    for folder in ("a", "b", "card", "book"):
        Path(folder).mkdir()
    Path("run.toml").write_text(RUN)
    Path("card/dataset.toml").write_text(CARD)
    Path("card/data.jsonl").write_text(PRODUCT)
    Path("card/samples.jsonl").symlink_to("data.jsonl")
    Path("card/none.csv").write_text("")
    Path("a/report.html").write_text("precious")
    for name in ("link.jsonl", "link.html", "journalled.jsonl.journal"):
        Path(name).symlink_to("in.jsonl")
    Path("link.csv").symlink_to("none.rejects.jsonl")
    Path("none").mkdir()
    Path("none/studio.sqlite").write_text("precious")
    Path("book.csv").symlink_to("none/studio.sqlite")
    return tmp_path


def _refused(line: str) -> BaseException | None:
    return CliRunner().invoke(app, line.split()).exception


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", OVERWRITTEN.values(), ids=OVERWRITTEN)
def test_no_command_writes_over_its_input(here: Path, line: str) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in sorted(here.rglob("*")) if path.is_file()}

    before = content()
    error = _refused(line)
    assert isinstance(error, ConfigError), error
    assert "is an input" in error.message
    assert content() == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("line", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_no_command_begins_what_it_cannot_write(line: str) -> None:
    error = _refused(line)
    assert isinstance(error, LlmtaggerError), error
    said = f"{error.message} {error.hint}"
    assert "end it in" in said or "name a f" in said
