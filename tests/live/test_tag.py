"""`llmtagger tag` as a user runs it, with a real server and a real index."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.index_writer import build
from llmtagger.backends.vllm_process import ServerInfo
from llmtagger.catalog import read_catalog
from llmtagger.vocabulary import read_vocabulary

pytestmark = [pytest.mark.live, pytest.mark.timeout(700)]

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' index."""
    folder = tmp_path_factory.mktemp("index") / "examples"
    products = read_catalog(
        EXAMPLES / "catalogue.jsonl", rejected=lambda row: pytest.fail(row.reason)
    )
    vocabulary = read_vocabulary(EXAMPLES / "vocabulary.jsonl")
    build(products, folder, load_encoder("multilingual"), vocabulary=vocabulary)
    return folder


class Command:
    """`llmtagger tag` on one input, in a folder of its own."""

    def __init__(self, folder: Path, index: Path, server: ServerInfo, count: int) -> None:
        lines = (EXAMPLES / "new.jsonl").read_text(encoding="utf-8").splitlines()[:count]
        self.input = folder / "new.jsonl"
        self.input.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.output = folder / "tagged.jsonl"
        self._fixed = ["-i", str(index), "--endpoint", server.url, "--show", "0"]
        self._fixed += ["--llm", "always"]

    def line(self, *options: str) -> Sequence[str]:
        """The whole command line."""
        start = [sys.executable, "-m", "llmtagger", "tag", str(self.input)]
        return [*start, "-o", str(self.output), *self._fixed, *options]

    def run(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(
            self.line(*options), capture_output=True, text=True, timeout=600, check=False
        )

    def records(self) -> list[dict[str, Any]]:
        """What it wrote."""
        return _rows(self.output)

    def ids(self) -> list[str]:
        """The ids of the input, in order."""
        return [row["id"] for row in _rows(self.input)]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def command(tmp_path: Path, index: Path, server: ServerInfo) -> Command:
    return Command(tmp_path, index, server, 6)


def test_a_run_is_written_resumed_and_cut_again(command: Command) -> None:
    first = command.run("--json")
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    assert (summary["products"], summary["resumed"]) == (6, 0)
    assert summary["prompt_tokens"] > 600
    records = command.records()
    assert [record["id"] for record in records] == command.ids()
    wallet = {tag["tag"]: tag for tag in records[0]["tags"]}
    assert wallet["zippered"]["evidence"]["spans"] == [{"field": "title", "text": "zippered"}]
    assert wallet["leather wallet"]["evidence"]["neighbours"]

    again = command.run("--json", "--threshold", "0.9")
    assert json.loads(again.stdout)["resumed"] == 6
    strict = command.records()
    assert all(tag["score"] >= 0.9 for record in strict for tag in record["tags"])
    assert 0 < sum(len(r["tags"]) for r in strict) < sum(len(r["tags"]) for r in records)

    other = command.run("--prompt", "free.v1")
    assert other.returncode == 1
    assert "prompt" in other.stderr
    assert "--fresh" in other.stderr


def test_a_bad_row_is_rejected_and_the_rest_goes_on(command: Command) -> None:
    good = command.ids()
    with command.input.open("a", encoding="utf-8") as file:
        file.write('{"id": "broken", "title": \n')
    done = command.run()
    assert done.returncode == 3, done.stderr
    assert [record["id"] for record in command.records()] == good
    rejects = _rows(Path(f"{command.output}.rejects.jsonl"))
    assert [row["line"] for row in rejects] == [7]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_an_interrupted_run_goes_on_with_nothing_lost_or_doubled(
    tmp_path: Path, index: Path, server: ServerInfo, number: signal.Signals
) -> None:
    command = Command(tmp_path, index, server, 10)
    settings = tmp_path / "few.toml"
    settings.write_text("[engine]\nconcurrency = 2\n", encoding="utf-8")
    with subprocess.Popen(
        command.line("--config", str(settings)), stderr=subprocess.PIPE
    ) as process:
        _wait_for_results(Path(f"{command.output}.journal"))
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert not command.output.exists()
    done = command.run("--json", "--config", str(settings))
    assert done.returncode == 0, done.stderr
    assert 0 < json.loads(done.stdout)["resumed"] < 10
    assert [record["id"] for record in command.records()] == command.ids()


def _wait_for_results(journal: Path) -> None:
    """Until some results are on disk."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        time.sleep(0.2)
        if journal.exists():
            connection = sqlite3.connect(f"file:{journal}?mode=ro", uri=True)
            try:
                if connection.execute("SELECT count(*) FROM results").fetchone()[0] >= 2:
                    return
            except sqlite3.OperationalError:
                continue
            finally:
                connection.close()
    pytest.fail("no result within two minutes")
