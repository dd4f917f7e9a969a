"""Servers that fail in every way: each product ends tagged, or with a problem that says why."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.torture.conftest import Silent, write_products
from tests.torture.fake_server import FakeServer, Fault, Lie, Plan, never, seeded

from llmtagger.backends import vllm_client, vllm_replicas
from llmtagger.backends.vllm_client import VllmGenerator
from llmtagger.config import EngineSettings, Settings
from llmtagger.datatypes import Constraint, Prompt
from llmtagger.errors import EngineUnreachable, RunError
from llmtagger.tagging import RunSummary, TagJob, run

TIMEOUT = 0.8  # s for one answer; what hangs or drips takes longer
SLOW = 4 * TIMEOUT
PERMANENT = (Fault.REFUSED, Fault.LENGTH)  # asking again would bring the same
PASSING = tuple(fault for fault in Fault if fault not in PERMANENT)
UNENDING = (Fault.HANG, Fault.DRIP)  # each takes a whole deadline


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses and rests at a tenth of their length, so that no test takes longer than need be."""
    for module, name in (
        (vllm_replicas, "FIRST_REST"),
        (vllm_replicas, "LONGEST_REST"),
        (vllm_replicas, "LONGEST_REST_OF_ALL"),
        (vllm_client, "FIRST_LOOK"),
        (vllm_client, "FIRST_PAUSE"),
        (vllm_client, "LONGEST_PAUSE"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name) / 10)


class Shop:
    """Products to tag, and runs on them in this process."""

    def __init__(self, folder: Path, index: Path, count: int) -> None:
        self._folder, self._index = folder, index
        self.input = folder / "new.jsonl"
        write_products(self.input, count)

    def tag(self, name: str, servers: Sequence[FakeServer]) -> tuple[RunSummary, dict[str, Any]]:
        """A summary, and the records by the products' numbers, less the run's id."""
        output = self._folder / f"{name}.jsonl"
        job = TagJob(
            input=str(self.input),
            index=self._index,
            output=str(output),
            endpoints=tuple(server.url for server in servers),
            llm="always",
            settings=Settings(engine=EngineSettings(timeout=TIMEOUT)),
        )
        summary = run(job, Silent())
        records = [json.loads(line) for line in output.read_text("utf-8").splitlines()]
        for record in records:
            del record["run"]["id"]
        return summary, {record["id"].removeprefix("p"): record for record in records}


@pytest.fixture
def servers() -> Iterator[list[FakeServer]]:
    """Three servers without faults."""
    with ExitStack() as stack:
        yield [stack.enter_context(FakeServer(hang=SLOW, drip=SLOW)) for _ in range(3)]


def _once(product: str, before: int) -> Fault | None:
    """Each product meets one kind of fault, the first time."""
    return list(Fault)[int(product) % len(Fault)] if before == 0 else None


def _always(product: str, before: int) -> Fault | None:
    """The first products meet one kind of fault each, whenever they are asked for."""
    return dict(enumerate(Fault)).get(int(product))


def test_a_fault_that_passes_changes_nothing(
    tmp_path: Path, index: Path, servers: list[FakeServer]
) -> None:
    shop = Shop(tmp_path, index, 2 * len(Fault))
    _, clean = shop.tag("clean", servers[:1])
    servers[1].plan = _once
    _, records = shop.tag("once", servers[1:2])
    for number, record in records.items():
        fault = _once(number, 0)
        asked = servers[1].asked().count(number)
        if fault in PERMANENT:
            assert (record["tags"], asked) == ([], 1)
        else:
            assert (record, asked) == (clean[number], 2), fault


NAMED = {
    Fault.TOO_MANY: "HTTP 429",
    Fault.BROKEN: "HTTP 500",
    Fault.BUSY: "HTTP 503",
    Fault.HANG: "ReadTimeout",
    Fault.DRIP: "ReadTimeout",
    Fault.CUT: "RemoteProtocolError",
    Fault.WRONG_JSON: "not a chat completion",
    Fault.NO_JSON: "JSONDecodeError",
    Fault.EMPTY: "not a chat completion",
}


def test_a_fault_that_stays_is_named_and_the_rest_goes_on(
    tmp_path: Path, index: Path, servers: list[FakeServer]
) -> None:
    shop = Shop(tmp_path, index, 30)
    _, clean = shop.tag("clean", servers[:1])
    servers[1].plan = _always
    summary, records = shop.tag("always", servers[1:2])
    assert summary.problems == len(Fault)
    for number, record in records.items():
        fault = _always(number, 0)
        if fault is None:
            assert record == clean[number]
            continue
        assert record["tags"] == []
        codes = {Fault.REFUSED: "request_refused", Fault.LENGTH: "answer_truncated"}
        assert record["problem"]["code"] == codes.get(fault, "request_failed")
        assert NAMED.get(fault, "") in record["problem"]["message"]
    assert servers[1].asked().count(str(list(Fault).index(Fault.REFUSED))) == 1


def test_a_lie_costs_no_tag_and_no_lie_is_written_down(
    tmp_path: Path, index: Path, servers: list[FakeServer]
) -> None:
    """Every tag of an honest answer is kept or for review, with figures that can be true."""
    shop = Shop(tmp_path, index, 2 * len(Lie))
    _, clean = shop.tag("clean", servers[:1])
    servers[1].plan = lambda product, before: list(Lie)[int(product) % len(Lie)]
    summary, records = shop.tag("lies", servers[1:2])
    assert summary.problems == 0
    assert summary.prompt_tokens >= 0
    assert summary.completion_tokens >= 0
    for number, record in records.items():
        assert _chosen(record) == _chosen(clean[number]) != set(), number
        json.dumps(record, allow_nan=False)
        for tag in record["tags"] + record["review"]:
            assert 0 <= tag["score"] <= 1


def _chosen(record: dict[str, Any]) -> set[str]:
    """The tags that the model chose: kept, for review, or said to score too low."""
    both = record["tags"] + record["review"]
    low = {each["text"] for each in record["rejected"] if each["reason"] == "below_threshold"}
    return low | {tag["tag"] for tag in both if tag["evidence"]["model"]["chosen"]}


@pytest.mark.timeout(600)
@pytest.mark.seeds(short=1, long=12)
def test_a_fifth_of_all_answers_at_fault(
    tmp_path: Path, index: Path, servers: list[FakeServer], seed: int
) -> None:
    shop = Shop(tmp_path, index, 100)
    _, clean = shop.tag("clean", servers[:1])
    servers[1].plan = seeded(seed, 0.2, *Fault)
    begun = time.monotonic()
    summary, records = shop.tag("mixed", servers[1:2])
    assert time.monotonic() - begun < 60
    assert list(records) == list(clean)
    problems = {n: record["problem"] for n, record in records.items() if record["problem"]}
    assert summary.problems == len(problems)
    assert {problem["code"] for problem in problems.values()} <= {
        *("request_refused", "answer_truncated", "request_failed"),
    }
    assert len(problems) < 20  # about 4 of 100 meet one of the two that stay, or five others
    assert all(record == clean[n] for n, record in records.items() if n not in problems)


@pytest.mark.timeout(600)
@pytest.mark.seeds(short=0, long=len(PASSING))
def test_a_fifth_of_all_answers_with_one_fault(
    tmp_path: Path, index: Path, servers: list[FakeServer], seed: int
) -> None:
    """All are tagged, but for those to which three answers in a row do not come in time."""
    shop = Shop(tmp_path, index, 100)
    _, clean = shop.tag("clean", servers[:1])
    plan = servers[1].plan = seeded(seed, 0.2, PASSING[seed])
    _, records = shop.tag("faults", servers[1:2])
    late = {
        number
        for number in clean
        if PASSING[seed] in UNENDING and all(plan(number, before) for before in range(3))
    }
    assert {number for number, record in records.items() if record["problem"]} == late
    assert all(record == clean[number] for number, record in records.items() if number not in late)
    for number in late:
        assert records[number]["problem"]["code"] == "request_failed"


@pytest.mark.parametrize("kind", ["gone", "broken", "hanging"])
def test_one_of_three_replicas_is_down(
    tmp_path: Path, index: Path, servers: list[FakeServer], kind: str
) -> None:
    shop = Shop(tmp_path, index, 60)
    _, clean = shop.tag("clean", servers[:1])
    sick = servers[1]
    plans: dict[str, Plan] = {
        "gone": never,
        "broken": lambda product, before: Fault.BROKEN,
        "hanging": lambda product, before: Fault.HANG,
    }
    sick.plan = plans[kind]
    if kind == "gone":
        sick.down()
    for server in servers:
        server.requests.clear()
    _, records = shop.tag(kind, servers)
    assert records == clean
    if kind == "gone":
        sick.up()
    assert len(sick.asked()) <= 64  # what was sent before it rested, and few tries since
    assert min(len(server.asked()) for server in (servers[0], servers[2])) > 10


def test_a_server_dies_and_comes_back(
    tmp_path: Path, index: Path, servers: list[FakeServer]
) -> None:
    shop = Shop(tmp_path, index, 100)
    _, clean = shop.tag("clean", servers[:1])
    mortal = servers[1]
    dead = threading.Event()

    def watch(number: int) -> None:
        if number > 30 and not dead.is_set():
            dead.set()
            threading.Thread(target=_die_and_rise, args=(mortal,)).start()

    mortal.watch = watch
    _, records = shop.tag("risen", [mortal])
    assert dead.is_set()
    assert records == clean


def _die_and_rise(server: FakeServer) -> None:
    server.down()
    time.sleep(0.5)
    server.up()


def test_a_server_that_stays_dead_stops_the_run_which_goes_on_later(
    tmp_path: Path, index: Path, servers: list[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VllmGenerator.__init__, "__kwdefaults__", _impatient())
    shop = Shop(tmp_path, index, 100)
    _, clean = shop.tag("clean", servers[:1])
    mortal = servers[1]
    gone = threading.Event()

    def watch(number: int) -> None:
        if number > 60 and not gone.is_set():
            gone.set()
            threading.Thread(target=mortal.down).start()

    mortal.watch = watch
    with pytest.raises(EngineUnreachable, match="No server answers"):
        shop.tag("stopped", [mortal])
    mortal.up()
    summary, records = shop.tag("stopped", [mortal])
    assert records == clean
    assert summary.resumed > 0


def _impatient() -> dict[str, Any]:
    defaults = VllmGenerator.__init__.__kwdefaults__
    assert defaults is not None
    return defaults | {"patience": 1.0}


PROMPT = Prompt((("user", "Title: mug no. 1"),), "tag.v1", "")
CONSTRAINT = Constraint({"items": {"enum": ["mug", "cup"]}}, 20)


def test_a_server_is_not_asked_before_it_said() -> None:
    with FakeServer(retry_after="1") as server:
        server.plan = lambda product, before: Fault.TOO_MANY if before < 4 else None
        generator = VllmGenerator([server.url], model="m", concurrency=4)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: generator.complete(PROMPT, CONSTRAINT), range(8)))
        generator.close()
    assert len(answers) == 8
    first = server.requests[0].at
    later = [request.at - first for request in server.requests]
    assert not [at for at in later if 0.4 < at < 0.95]  # before, they were on their way
    assert [at for at in later if at >= 0.95]


def test_requests_in_flight_adapt_to_the_server() -> None:
    """It takes eight at once; sixty-four are wanted."""
    with FakeServer(room=8, seconds=0.3) as server:
        generator = VllmGenerator([server.url], model="m", concurrency=64)
        begun = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(lambda _: generator.complete(PROMPT, CONSTRAINT), range(150)))
        spent = time.monotonic() - begun
        generator.close()
    refused = [request.fault is Fault.TOO_MANY for request in server.requests]
    assert any(refused[:64])  # too many were sent at first
    later = refused[len(refused) // 2 :]
    assert sum(later) / len(later) < 0.2
    assert spent < 20


def test_what_was_said_to_wait_is_scattered() -> None:
    with FakeServer(lambda product, before: Fault.BUSY if before < 16 else None) as server:
        generator = VllmGenerator([server.url], model="m", concurrency=16)
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda _: generator.complete(PROMPT, CONSTRAINT), range(16)))
        generator.close()
    again = sorted(request.at for request in server.requests[16:])
    assert len({round(later - sooner, 4) for sooner, later in pairwise(again)}) > 4


def test_an_input_that_is_changed_meanwhile_is_noticed(
    tmp_path: Path, index: Path, servers: list[FakeServer]
) -> None:
    shop = Shop(tmp_path, index, 40)

    def watch(number: int) -> None:
        if number == 20:
            text = shop.input.read_text("utf-8").replace("no. 39", "another no. 39")
            shop.input.with_suffix(".part").write_text(text, "utf-8")
            shop.input.with_suffix(".part").replace(shop.input)

    servers[0].watch = watch
    with pytest.raises(RunError, match="was changed while it was being tagged"):
        shop.tag("changed", servers[:1])
    servers[0].watch = lambda number: None
    _, records = shop.tag("changed", servers[:1])
    assert "another no. 39" in records["39"]["title"]
