"""The real server killed in mid-run: its core, or the process that it is talked to through."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from tests.torture.conftest import Command

PRODUCTS = 16
# vLLM gives its processes these names; the first generation is the one that answers requests.
CORE = "VLLM::EngineCore"


@pytest.mark.live
@pytest.mark.timeout(900)
@pytest.mark.seeds(short=1, long=4)
def test_the_run_goes_on(tmp_path: Path, index: Path, seed: int) -> None:
    command = Command(tmp_path, index, [], PRODUCTS)
    with command.start() as process:
        try:
            wait_for_results(process, Path(f"{command.output}.journal"), 1 + 2 * seed)
            killed = victim(process.pid, core=seed % 2 == 0)
            killed.kill()
            said = process.communicate(timeout=600)[1]
        finally:
            process.terminate()
    assert process.returncode == 0, said
    assert not killed.is_running()
    records = command.records()
    assert [record["id"] for record in records] == [f"p{number}" for number in range(PRODUCTS)]
    assert not [record["problem"] for record in records if record.get("problem")]
    assert command.processes() == []


def victim(parent: int, *, core: bool) -> psutil.Process:
    """The engine's core, or the server that it is a child of."""
    cores = [each for each in psutil.Process(parent).children(recursive=True) if is_core(each)]
    assert len(cores) == 1, cores
    return cores[0] if core else cores[0].parent()


def is_core(process: psutil.Process) -> bool:
    return CORE in " ".join([process.name(), *process.cmdline()])


def wait_for_results(process: subprocess.Popen[str], journal: Path, count: int) -> None:
    """Until so many results are on disk."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
        if journal.exists() and results(journal) >= count:
            return
    process.kill()
    pytest.fail(f"{count} results did not come about: {process.communicate()[1]}")


def results(journal: Path) -> int:
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])
        except sqlite3.OperationalError:
            return 0
