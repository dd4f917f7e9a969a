"""An index, many products, and `llmtagger tag` on them as a process; the long form on wish."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.torture.damaging import MARK

from llmtagger.backends.encoders import load_encoder
from llmtagger.backends.index_writer import build
from llmtagger.catalog import read_catalog
from llmtagger.datatypes import Product, TaggedProduct
from llmtagger.vocabulary import read_vocabulary

EXAMPLES = Path(__file__).parents[2] / "examples"
CONCURRENCY = 16
_MARK = "LLMTAGGER_TORTURED"  # in the environment of every process that a test starts


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`seed`: as many as the mark `seeds` says for the short form or the long one."""
    if "seed" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("seeds")
        assert mark is not None, "say how many: @pytest.mark.seeds(short=1, long=10)"
        form = "long" if metafunc.config.getoption("--torture") else "short"
        metafunc.parametrize("seed", range(mark.kwargs[form]))


@pytest.fixture
def nothing_is_unpickled() -> Iterator[None]:
    """Whatever a file holds."""
    yield
    unpickled = MARK.exists()
    if unpickled:
        MARK.rmdir()
    assert not unpickled


def catalogue() -> list[Product]:
    """The examples' labelled products."""
    return list(
        read_catalog(EXAMPLES / "catalogue.jsonl", rejected=lambda row: pytest.fail(row.reason))
    )


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' index, by the encoder that counts words."""
    folder = tmp_path_factory.mktemp("index") / "examples"
    vocabulary = read_vocabulary(EXAMPLES / "vocabulary.jsonl")
    build(catalogue()[:200], folder, load_encoder("hashing"), vocabulary=vocabulary)
    return folder


def write_products(path: Path, count: int) -> None:
    """Products to tag: the words of two labelled ones, and a number that the server finds."""
    dice = random.Random(0)
    labelled = catalogue()
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            one, other = dice.sample(labelled, 2)
            title = f"{one.title[:60]} {other.title[:30]} no. {number}"
            record = {"id": f"p{number}", "title": title, "lang": one.lang}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


class Silent:
    """Watches a run and says nothing."""

    def waiting(self, message: str, seconds: float) -> None:
        pass

    def started(self, total: int, done: int) -> None:
        pass

    def understood(self, understood: object) -> None:
        """Nothing to do."""

    def finished_one(self, tagged: TaggedProduct) -> None:
        pass


class Command:
    """`llmtagger tag` in a folder of its own, which holds its input, output and temporary files."""

    def __init__(self, folder: Path, index: Path, urls: Sequence[str], count: int) -> None:
        self.folder = folder
        self.input, self.output = folder / "new.jsonl", folder / "tagged.jsonl"
        self.count = count
        write_products(self.input, count)
        (folder / "tmp").mkdir()
        settings = folder / "settings.toml"
        settings.write_text(f"[engine]\nconcurrency = {CONCURRENCY}\n", encoding="utf-8")
        self._options = ["-i", str(index), "--config", str(settings), "--show", "0", "--json"]
        self._options += ["--llm", "always"]
        for url in urls:
            self._options += ["--endpoint", url]

    def start(self, *options: str, key: str = "-", **environment: str) -> subprocess.Popen[str]:
        """Run it; the servers see `key`."""
        line = [sys.executable, "-m", "llmtagger", "tag", str(self.input), "-o", str(self.output)]
        return subprocess.Popen(
            [*line, *self._options, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment(key) | environment,
        )

    def run(self, *options: str, key: str = "-", **environment: str) -> dict[str, Any]:
        """Run it to its end; the summary."""
        with self.start(*options, key=key, **environment) as process:
            out, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
        summary: dict[str, Any] = json.loads(out)
        return summary

    def _environment(self, key: str) -> dict[str, str]:
        own = {"LLMTAGGER_API_KEY": key, _MARK: str(self.folder)}
        return dict(os.environ) | own | {"TMPDIR": str(self.folder / "tmp")}

    def processes(self) -> list[psutil.Process]:
        """The processes that this command has started and that still run."""
        return [each for each in psutil.process_iter() if _environment_of(each) == str(self.folder)]

    def content(self) -> bytes:
        """The output, with the run's id, which no two runs share, replaced in every record."""
        raw = self.output.read_bytes()
        ids = {record["run"]["id"] for record in self.records()}
        assert len(ids) == 1
        return raw.replace(ids.pop().encode(), b"RUN")

    def records(self) -> list[dict[str, Any]]:
        """The output, read."""
        return [json.loads(line) for line in self.output.read_text("utf-8").splitlines()]

    def files(self) -> set[str]:
        """All that lies in the folder but what was there before the first run."""
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
        return found - {"new.jsonl", "settings.toml", "tmp"}


def _environment_of(process: psutil.Process) -> str | None:
    try:
        environment: Mapping[str, str] = process.environ()
        return environment.get(_MARK) if process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None
