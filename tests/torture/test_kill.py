"""Killed anywhere, a run goes on: nothing lost, nothing doubled, the output to the byte."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.torture.conftest import CONCURRENCY, Command
from tests.torture.fake_server import FakeServer, Fault, never

from llmtagger.pipeline import BATCH

LOST = CONCURRENCY + BATCH  # products that are with the workers, the only ones to be asked again
STAGES = ("start", "request", "commit", "writing", "written")


@dataclass(frozen=True, order=True)
class Moment:
    """When to kill: at the `number`-th event of a stage, and that many seconds later."""

    stage: int
    number: int
    later: float

    def __str__(self) -> str:
        return f"{STAGES[self.stage]} {self.number} +{1000 * self.later:.1f} ms"


def moments(seed: int, count: int, products: int) -> list[Moment]:
    """Kills in the order of the run's stages, one of each kind if `count` admits."""
    dice = random.Random(seed)
    stages = [*range(min(count, len(STAGES)))]
    stages += [dice.choice((0, 1, 1, 1, 2, 2, 2, 3)) for _ in range(count - len(stages))]
    latest = (2.0, 0.02, 0.002, 0.01, 0.002)  # s
    most = (1, products // count, products // count, 1, 1)
    return sorted(
        Moment(stage, dice.randint(1, most[stage]), dice.uniform(0, latest[stage]))
        for stage in stages
    )


class Killer:
    """Waits for a moment of one process, and kills it."""

    def __init__(self, command: Command, server: FakeServer) -> None:
        self._command = command
        self._server = server
        self._log = Path(f"{command.output}.journal-wal")

    def kill(self, moment: Moment, key: str) -> bool:
        """Whether it came to that: a process may have ended before."""
        arrived = threading.Event()
        first = len(self._server.requests)
        self._server.watch = lambda number: (
            arrived.set() if number - first >= moment.number + 1 else None  # 1: the probe
        )
        before = self._mark(self._command.output)
        process = self._command.start(key=key)
        happened: dict[str, Callable[[], bool]] = {
            "start": lambda: True,
            "request": arrived.is_set,
            "commit": self._commits(moment.number),
            "writing": lambda: any(self._command.folder.glob(".*.tmp")),
            "written": lambda: self._mark(self._command.output) != before,
        }
        reached = happened[STAGES[moment.stage]]
        while not reached() and process.poll() is None:
            time.sleep(0.0002)
        time.sleep(moment.later)
        process.kill()
        process.communicate()
        return process.returncode != 0

    def _commits(self, wanted: int) -> Callable[[], bool]:
        seen = [self._mark(self._log)]
        left = [wanted]

        def reached() -> bool:
            if (now := self._mark(self._log)) != seen[0]:
                seen[0] = now
                left[0] -= 1
            return left[0] <= 0

        return reached

    @staticmethod
    def _mark(path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


@pytest.fixture(scope="module")
def products(request: pytest.FixtureRequest) -> int:
    """How many products a run has."""
    return 300 if request.config.getoption("--torture") else 120


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, index: Path, products: int) -> bytes:
    """What a run writes that nobody interrupts."""
    with FakeServer() as server:
        command = Command(tmp_path_factory.mktemp("whole"), index, [server.url], products)
        summary = command.run()
        assert (summary["asked"], summary["problems"]) == (products, 0)
        return command.content()


@pytest.mark.timeout(600)
@pytest.mark.seeds(short=1, long=34)  # of six kills each
def test_killed_anywhere_a_run_goes_on(
    tmp_path: Path, index: Path, products: int, expected: bytes, seed: int
) -> None:
    with FakeServer() as server:
        command = Command(tmp_path, index, [server.url], products)
        killer = Killer(command, server)
        killed = 0
        for number, moment in enumerate(moments(seed, 6, products)):
            was_killed = killer.kill(moment, f"run-{number}")
            assert was_killed or moment.stage >= STAGES.index("writing"), moment
            killed += was_killed
            assert command.processes() == []
        command.run(key="last")
        assert command.content() == expected
        assert command.files() == {"tagged.jsonl", "tagged.jsonl.journal"}
        asked = [product for product in server.asked() if product]
        assert set(asked) == {str(number) for number in range(products)}
        assert len(asked) - products <= killed * LOST


def test_a_journal_is_free_as_soon_as_its_process_is_gone(tmp_path: Path, index: Path) -> None:
    with FakeServer(hang=60) as server:
        command = Command(tmp_path, index, [server.url], 20)
        begun = threading.Event()
        server.watch = lambda number: begun.set() if number > 1 else None
        server.plan = lambda product, before: Fault.HANG
        with command.start() as first:
            assert begun.wait(60)
            with command.start() as second:
                _, said = second.communicate(timeout=60)
            assert second.returncode == 1
            assert "another process is working" in " ".join(said.split())
            first.kill()
            first.communicate()
        server.plan = never
        assert command.run()["products"] == 20
        assert command.files() == {"tagged.jsonl", "tagged.jsonl.journal"}
