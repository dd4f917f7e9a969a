"""The client against real HTTP servers on loopback that speak vLLM's part of the protocol."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import pytest

from llmtagger.backends import vllm_client, vllm_replicas
from llmtagger.backends.vllm_client import ServerMetrics, VllmGenerator
from llmtagger.backends.vllm_replicas import Replicas
from llmtagger.backends.window import Window
from llmtagger.datatypes import Constraint, Prompt, TokenLogprob
from llmtagger.errors import (
    ConfigError,
    EngineError,
    EngineUnreachable,
    EngineUntrusted,
    ModelMissing,
    RequestFailed,
    RequestRefused,
)

PROMPT = Prompt((("system", "Choose."), ("user", "钱包")), "tag.v1", "hash")
CONSTRAINT = Constraint({"enum": ["wallet", "钱包"]}, max_tokens=20)
Answer = tuple[int, Any]


def obey(body: dict[str, Any]) -> Answer:
    """What vLLM does: the grammar's first choice, as a chat completion."""
    text = json.dumps(body["structured_outputs"]["json"]["enum"][0], ensure_ascii=False)
    return 200, completion(text)


def completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    token = {"token": text, "logprob": -0.25, "bytes": None, "top_logprobs": []}
    part = {"token": "\ufffd", "logprob": -0.5, "bytes": [0xE9], "top_logprobs": []}
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
                "logprobs": {"content": [token, part]},
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def refuse(code: int, message: str) -> Callable[[dict[str, Any]], Answer]:
    return lambda body: (code, {"error": {"message": message, "code": code}})


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has hung up is part of these tests."""


class FakeServer:
    """A server whose answers are a function; it can be taken down and brought up at its port."""

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, Any]], Answer] = obey
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.metrics = "vllm:prefix_cache_queries_total 0\n"
        self.port = 0
        self.up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        self._http = QuietServer(("127.0.0.1", self.port), self._handler())
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self.reply(200, fake.metrics.encode(), "text/plain")
                else:
                    models = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}
                    self.reply(200, json.dumps(models).encode())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                fake.bodies.append(body)
                fake.headers.append(dict(self.headers))
                code, answer = fake.behave(body)
                raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.reply(code, raw)

            def reply(self, code: int, raw: bytes, kind: str = "application/json") -> None:
                self.send_response(code)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def other() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def make() -> Iterator[Callable[..., VllmGenerator]]:
    made: list[VllmGenerator] = []

    def build(*servers: FakeServer | str, **options: Any) -> VllmGenerator:
        urls = [s if isinstance(s, str) else s.url for s in servers]
        made.append(VllmGenerator(urls, **{"model": "tiny", "patience": 0.5, **options}))
        return made[-1]

    yield build
    for generator in made:
        generator.close()


def dead_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_an_answer_carries_everything_the_server_said(server: FakeServer, make: Any) -> None:
    answer = make(server).complete(PROMPT, CONSTRAINT)
    assert answer.text == '"wallet"'
    assert (answer.finish_reason, answer.model) == ("stop", "tiny")
    assert answer.logprobs == (TokenLogprob(b'"wallet"', -0.25), TokenLogprob(b"\xe9", -0.5))
    assert (answer.prompt_tokens, answer.completion_tokens) == (7, 3)
    assert 0 < answer.seconds < 5


def test_the_request_is_greedy_and_carries_the_grammar(
    server: FakeServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMTAGGER_API_KEY", "secret")
    make(server).complete(PROMPT, CONSTRAINT)
    body = server.bodies[0]
    assert body["structured_outputs"] == {
        "json": {"enum": ["wallet", "钱包"]},
        "disable_any_whitespace": True,
    }
    assert body["messages"][1] == {"role": "user", "content": "钱包"}
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0, 20, True)
    assert server.headers[0]["authorization"] == "Bearer secret"


def test_the_model_is_asked_for_where_it_is_not_named(server: FakeServer, make: Any) -> None:
    assert make(server, model=None).model == "tiny"


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_an_endpoint_may_end_in_v1(server: FakeServer, make: Any, suffix: str) -> None:
    assert make(server.url + suffix).complete(PROMPT, CONSTRAINT).text == '"wallet"'


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://x", "http://", "http://x:99999"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not the address"):
        VllmGenerator([address])


@pytest.mark.parametrize(
    "address",
    [
        "http://ann:canary@HOST:8000",
        "http://canary@HOST/v1",
        "http://ann:can/canary@HOST",
        "http://ann:can@canary@HOST",
        "ann:canary@HOST",
        "http://HOST:8000/v1?key=canary",
        "http://HOST/?canary",
        "http://HOST/#canary",
        "ftp://ann:canary@HOST",
    ],
)
def test_an_address_with_a_secret_is_refused_without_quoting_it(address: str) -> None:
    with pytest.raises(ConfigError, match=r"HOST.* has a name, a password or a key") as caught:
        VllmGenerator([address])
    assert "LLMTAGGER_API_KEY_FILE" in caught.value.hint
    assert "canary" not in caught.value.message + caught.value.hint


def test_a_refusal_that_quotes_the_key_is_shortened(
    server: FakeServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMTAGGER_API_KEY", "canary")
    for status, said in ((400, RequestRefused), (401, EngineError), (404, ModelMissing)):
        server.behave = refuse(status, "no: Bearer canary")
        with pytest.raises(said, match="no: Bearer …"):
            make(server).complete(PROMPT, CONSTRAINT)
    server.behave = refuse(500, "no: Bearer canary")
    with pytest.raises(EngineUnreachable, match="no: Bearer …"):
        make(server).complete(PROMPT, CONSTRAINT)


def test_requests_are_spread_over_the_replicas(
    server: FakeServer, other: FakeServer, make: Any
) -> None:
    barrier = threading.Barrier(8, timeout=5)

    def together(body: dict[str, Any]) -> Answer:
        barrier.wait()
        return obey(body)

    server.behave = other.behave = together
    generator = make(server, other)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: generator.complete(PROMPT, CONSTRAINT), range(8)))
    assert (len(server.bodies), len(other.bodies)) == (4, 4)


def test_a_broken_replica_is_left_out_and_used_again(
    server: FakeServer, other: FakeServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_replicas, "FIRST_REST", 0.3)
    server.behave = refuse(500, "broken")
    generator = make(server, other)
    for _ in range(5):
        assert generator.complete(PROMPT, CONSTRAINT).text == '"wallet"'
    assert (len(server.bodies), len(other.bodies)) == (vllm_replicas.TRIP, 5)
    server.behave = obey
    time.sleep(0.35)
    for _ in range(3):
        generator.complete(PROMPT, CONSTRAINT)
    assert len(server.bodies) > vllm_replicas.TRIP


def test_a_server_that_goes_away_and_comes_back_is_waited_for(
    server: FakeServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_replicas, "FIRST_REST", 0.1)
    generator = make(server, patience=10)
    server.down()
    threading.Timer(0.4, server.up).start()
    assert generator.complete(PROMPT, CONSTRAINT).text == '"wallet"'


@pytest.mark.parametrize("code", vllm_client.BUSY)
def test_a_busy_server_is_asked_again(server: FakeServer, make: Any, code: int) -> None:
    answers = iter([refuse(code, "queue full"), refuse(code, "queue full"), obey])
    server.behave = lambda body: next(answers)(body)
    assert make(server, patience=20).complete(PROMPT, CONSTRAINT).text == '"wallet"'
    assert len(server.bodies) == 3


def test_a_refused_prompt_is_not_sent_again(
    server: FakeServer, other: FakeServer, make: Any
) -> None:
    server.behave = other.behave = refuse(400, "maximum context length is 8192 tokens")
    with pytest.raises(RequestRefused, match="maximum context length"):
        make(server, other).complete(PROMPT, CONSTRAINT)
    assert len(server.bodies) + len(other.bodies) == 1


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [(401, EngineError, "LLMTAGGER_API_KEY"), (404, ModelMissing, "--model")],
)
def test_wrong_wiring_stops_the_run(
    server: FakeServer, make: Any, code: int, kind: type[EngineError], hint: str
) -> None:
    server.behave = refuse(code, "no")
    with pytest.raises(kind) as caught:
        make(server).complete(PROMPT, CONSTRAINT)
    assert hint in caught.value.hint
    assert not isinstance(caught.value, RequestRefused)


@pytest.mark.parametrize(
    "answer",
    [
        *(b"<html>welcome</html>", b"[]", b'{"choices": []}', b'{"detail": "hello"}', b"\xff\xfe"),
        b"[" * 100_000,
    ],
    ids=["html", "list", "no choices", "other object", "no text", "nested"],
)
def test_what_is_no_completion_is_a_failed_server(
    server: FakeServer, make: Any, answer: bytes
) -> None:
    server.behave = lambda body: (200, answer)
    with pytest.raises(EngineUnreachable):
        make(server, patience=0.1).complete(PROMPT, CONSTRAINT)


def test_nobody_at_the_endpoint(make: Any) -> None:
    url = dead_url()
    with pytest.raises(EngineUnreachable, match=re.escape(url)) as caught:
        make(url).probe()
    assert caught.value.retryable
    assert "--endpoint" in caught.value.hint


def test_a_hanging_server_times_out(server: FakeServer, other: FakeServer, make: Any) -> None:
    release = threading.Event()
    server.behave = lambda body: (release.wait(5), obey(body))[1]
    try:
        answer = make(server, other, timeout=0.3).complete(PROMPT, CONSTRAINT)
    finally:
        release.set()
    assert answer.text == '"wallet"'
    assert len(other.bodies) == 1


def test_the_probe_passes_an_obedient_server(server: FakeServer, make: Any) -> None:
    make(server).probe()
    (word,) = server.bodies[0]["structured_outputs"]["json"]["enum"]
    assert not word.isascii()


@pytest.mark.parametrize("place", [0, 1], ids=["first", "second"])
def test_the_probe_finds_a_server_that_ignores_grammars(
    server: FakeServer, other: FakeServer, make: Any, place: int
) -> None:
    liar = (server, other)[place]
    liar.behave = lambda body: (200, completion("Hello! How can I help you?"))
    with pytest.raises(EngineUntrusted, match="Hello!"):
        make(server, other).probe()


def test_the_probe_goes_on_without_a_dead_replica(server: FakeServer, make: Any) -> None:
    make(dead_url(), server).probe()


def test_the_prefix_cache_is_summed_over_servers(
    server: FakeServer, other: FakeServer, make: Any
) -> None:
    server.metrics = (
        'vllm:prefix_cache_queries_total{engine="0"} 100.0\n'
        'vllm:prefix_cache_hits_total{engine="0"} 1e+01\n'
    )
    other.metrics = "vllm:prefix_cache_queries_total 300\nvllm:prefix_cache_hits_total 90\n"
    found = make(server, other, dead_url()).metrics()
    assert found == ServerMetrics(queries=400, hits=100)
    assert found.hit_rate() == 0.25
    assert found.hit_rate(since=ServerMetrics(200, 50)) == 0.25
    assert found.hit_rate(since=found) is None


def test_a_server_trips_after_failures_in_a_row() -> None:
    replicas = Replicas(["http://a:1"], 1, clock=lambda: 0.0)
    (only,) = replicas.all
    for _ in range(vllm_replicas.TRIP - 1):
        replicas.failed(only)
    replicas.succeeded(only)
    for _ in range(vllm_replicas.TRIP):
        assert only.rest == 0
        replicas.failed(only)
    assert only.rest == vllm_replicas.FIRST_REST
    replicas.close()


def test_a_rested_server_is_tried_by_one_although_older_requests_hang() -> None:
    now = [0.0]
    replicas = Replicas(["http://a:1"], 1, clock=lambda: now[0])
    (only,) = replicas.all
    with replicas.lend() as hanging:
        assert hanging is only
        replicas.failed(only, unreached=True)
        now[0] += 1.1
        with replicas.lend() as trying, replicas.lend() as too_many:
            assert (trying, too_many) == (only, None)
            replicas.failed(only)
        now[0] += 2.1
        with replicas.lend() as again:
            assert again is only
            replicas.succeeded(only)
        with replicas.lend() as one, replicas.lend() as more:
            assert (one, more) == (only, only)
    replicas.close()


def test_a_failed_request_moves_on_to_another_server() -> None:
    replicas = Replicas(["http://a:1", "http://b:1"], 1)
    one, other = replicas.all
    with replicas.lend(avoid=one) as chosen, replicas.lend(avoid=one) as again:
        assert (chosen, again) == (other, other)
    with replicas.lend(only=one, avoid=one) as chosen:
        assert chosen is one
    replicas.close()


def test_a_window_halves_once_a_round_and_widens_by_one() -> None:
    window = Window(64)
    for _ in range(64):
        window.halve(sent=1.0, now=2.0)  # all of one round
    assert window.size == 32
    window.halve(sent=2.5, now=3.0)
    assert window.size == 16
    for _ in range(17):
        window.widen()
    assert window.size == 17
    for moment in range(4, 20):
        window.halve(sent=moment, now=moment)
    assert window.size == 1
    for _ in range(5000):
        window.widen()
    assert window.size == 64


def test_a_window_bounds_what_is_in_flight() -> None:
    replicas = Replicas(["http://a:1"], 1, 2, clock=lambda: 1.0)
    with replicas.lend() as one, replicas.lend() as two, replicas.lend() as three:
        assert None not in (one, two)
        assert three is None
    replicas.overloaded(replicas.all[0], sent=0.0)
    with replicas.lend() as one, replicas.lend() as two:
        assert one is not None
        assert two is None
    replicas.close()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("", 0.0),
        ("soon", 0.0),
        ("-3", 0.0),
        ("inf", 0.0),
        ("nan", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_what_a_server_asks_to_wait(said: str, seconds: float) -> None:
    assert vllm_client.retry_after({"retry-after": said}) == seconds


def test_a_date_to_come_back_at() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 < vllm_client.retry_after({"retry-after": date}) <= 30


def test_a_request_that_alone_fails_is_given_up(
    server: FakeServer, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_replicas, "FIRST_REST", 0.01)
    monkeypatch.setattr(vllm_client, "FIRST_PAUSE", 0.01)

    def poisoned(body: dict[str, Any]) -> Answer:
        return refuse(500, "bad luck")(body) if len(body["messages"]) == 2 else obey(body)

    server.behave = poisoned
    with pytest.raises(RequestFailed, match=r"6 attempts .* HTTP 500: bad luck"):
        make(server, patience=20).complete(PROMPT, CONSTRAINT)
    assert (
        len(server.bodies) == vllm_client.TRIES + 2
    )  # what showed that the server is well, and the last try


def test_rests_double_up_to_a_minute() -> None:
    now = [0.0]
    replicas = Replicas(["http://a:1", "http://b:1"], 1, clock=lambda: now[0])
    sick, well = replicas.all
    rests = []
    for _ in range(8):
        replicas.failed(sick, unreached=True)
        replicas.failed(sick, unreached=True)  # of a request sent before: no longer rest
        rests.append(sick.rest)
        with replicas.lend() as chosen:
            assert chosen is well
        now[0] += sick.rest
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60]
    with replicas.lend() as first, replicas.lend() as second, replicas.lend() as third:
        assert [first, second, third] == [sick, well, well]
    replicas.close()


def test_where_no_server_is_well_rests_are_short() -> None:
    now = [0.0]
    replicas = Replicas(["http://a:1"], 1, clock=lambda: now[0])
    for _ in range(6):
        replicas.failed(replicas.all[0], unreached=True)
        now[0] += 60
    replicas.failed(replicas.all[0])
    now[0] += 4.9
    with replicas.lend() as chosen:
        assert chosen is None
    now[0] += 0.2
    with replicas.lend() as chosen:
        assert chosen is replicas.all[0]
    replicas.close()
