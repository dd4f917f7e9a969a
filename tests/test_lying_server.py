"""Servers that lie: in numbers, in length, in time, and about where they are."""

from __future__ import annotations

import gzip
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from tests.test_vllm_client import CONSTRAINT, PROMPT, FakeServer, completion, dead_url

from llmtagger.backends import http_client, vllm_client
from llmtagger.backends.proxies import is_this_machine, proxy_for
from llmtagger.backends.vllm_client import ServerMetrics, VllmGenerator
from llmtagger.backends.vllm_supervisor import is_healthy
from llmtagger.datatypes import Completion, TokenLogprob
from llmtagger.errors import ConfigError, EngineError, EngineUnreachable

Make = Callable[..., VllmGenerator]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as fake:
        yield fake


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[VllmGenerator] = []

    def build(url: str, **options: Any) -> VllmGenerator:
        made.append(VllmGenerator([url], **{"model": "tiny", "patience": 0.1, **options}))
        return made[-1]

    yield build
    for generator in made:
        generator.close()


@pytest.fixture
def says() -> Iterator[Callable[[Iterable[bytes]], str]]:
    """`says(pieces)`: the address of a server that answers each request with those bytes.

    Anything that can be gone through more than once.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        said: list[Iterable[bytes]] = []

        def serve() -> None:
            with suppress(OSError):  # closed at the end of the test
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(65536)
                for piece in said[0]:
                    connection.sendall(piece)

        def start(pieces: Iterable[bytes]) -> str:
            said.append(pieces)
            threading.Thread(target=serve, daemon=True).start()
            return f"http://127.0.0.1:{listening.getsockname()[1]}"

        yield start
        listening.shutdown(socket.SHUT_RDWR)


def _answer(**changed: Any) -> dict[str, Any]:
    """An answer of which a token or the usage is changed."""
    answer = completion('"wallet"')
    answer["usage"] |= {name: value for name, value in changed.items() if "tokens" in name}
    token = answer["choices"][0]["logprobs"]["content"][0]
    token |= {name: value for name, value in changed.items() if name in token}
    return answer


@pytest.mark.parametrize(
    "logprob", [math.nan, math.inf, -math.inf, 710.0, 1.0, -1e300, 10**400, "high", None, [], True]
)
def test_one_impossible_log_probability_and_none_is_believed(
    server: FakeServer, make: Make, logprob: object
) -> None:
    server.behave = lambda body: (200, _answer(logprob=logprob))
    answer = make(server.url).complete(PROMPT, CONSTRAINT)
    assert (answer.text, answer.logprobs) == ('"wallet"', ())


@pytest.mark.parametrize("spelt", [10**13, [256], [-1], ["a"], "wallet", 1.5])
def test_a_token_that_is_not_spelt_in_bytes_costs_the_probabilities_alone(
    server: FakeServer, make: Make, spelt: object
) -> None:
    server.behave = lambda body: (200, _answer(bytes=spelt))
    answer = make(server.url).complete(PROMPT, CONSTRAINT)
    assert (answer.text, answer.logprobs) == ('"wallet"', ())


@pytest.mark.parametrize("content", [3, "abc", {"a": 1}, [3], [{}], [None]])
def test_tokens_of_another_shape_cost_the_probabilities_alone(
    server: FakeServer, make: Make, content: object
) -> None:
    answer = completion('"wallet"')
    answer["choices"][0]["logprobs"]["content"] = content
    server.behave = lambda body: (200, answer)
    assert make(server.url).complete(PROMPT, CONSTRAINT).logprobs == ()


@pytest.mark.parametrize("count", [math.inf, math.nan, -5, 1e300, 10**300, "many", [], True])
def test_an_impossible_count_is_none(server: FakeServer, make: Make, count: object) -> None:
    server.behave = lambda body: (200, _answer(prompt_tokens=count, completion_tokens=2))
    answer = make(server.url).complete(PROMPT, CONSTRAINT)
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ('"wallet"', 0, 2)


@pytest.mark.parametrize("usage", [5, "none", [], None])
def test_usage_of_another_shape_is_none(server: FakeServer, make: Make, usage: object) -> None:
    server.behave = lambda body: (200, completion('"wallet"') | {"usage": usage})
    answer = make(server.url).complete(PROMPT, CONSTRAINT)
    assert (answer.text, answer.prompt_tokens) == ('"wallet"', 0)


@pytest.mark.parametrize("content", [["wallet"], {"a": 1}, 5])
def test_what_is_no_text_is_no_answer(server: FakeServer, make: Make, content: object) -> None:
    answer = completion("")
    answer["choices"][0]["message"]["content"] = content
    server.behave = lambda body: (200, answer)
    with pytest.raises(EngineUnreachable, match="not a chat completion"):
        make(server.url).complete(PROMPT, CONSTRAINT)


def test_a_completion_checks_its_numbers_whoever_makes_it() -> None:
    sound = (TokenLogprob(b"a", -0.5), TokenLogprob(b"b", 1e-7))
    assert Completion("ab", "stop", "m", sound, 3, 2).logprobs == sound
    lied = Completion("ab", "stop", "m", (*sound, TokenLogprob(b"c", math.nan)), -1, 2)
    assert (lied.logprobs, lied.prompt_tokens, lied.completion_tokens) == ((), 0, 2)


@pytest.mark.parametrize("said", ["many", "NaN", "+Inf", "-3", "1e400", "0x10", "", "1" * 5000])
def test_a_counter_that_is_no_count_is_left_out(server: FakeServer, make: Make, said: str) -> None:
    server.metrics = (
        f"vllm:prefix_cache_queries_total {said}\n"
        'vllm:prefix_cache_queries_total{engine="1"} 8.0\n'
        "vllm:prefix_cache_hits_total 2\n"
    )
    assert make(server.url).metrics() == ServerMetrics(queries=8, hits=2)


def test_counters_that_contradict_each_other_give_no_rate() -> None:
    assert ServerMetrics(queries=4, hits=9).hit_rate() is None
    assert ServerMetrics(queries=10, hits=1).hit_rate(since=ServerMetrics(5, 3)) is None


def test_counters_are_read_in_linear_time(server: FakeServer, make: Make) -> None:
    server.metrics = "vllm:prefix_cache_hits_total{" + "\nvllm:prefix_cache_hits_total{" * 100_000
    begun = time.process_time()
    assert make(server.url).metrics() == ServerMetrics()
    assert time.process_time() - begun < 5


def test_counters_in_no_known_encoding(says: Any, make: Make) -> None:
    head = b"HTTP/1.1 200 so\r\ncontent-type: text/plain; charset=hex\r\ncontent-length: 2\r\n\r\n"
    assert make(says([head, b"zz"])).metrics() == ServerMetrics()


@dataclass(frozen=True)
class Endless:
    """One piece, and then another for ever, with a pause before each."""

    first: bytes
    piece: bytes
    pause: float = 0.02

    def __iter__(self) -> Iterator[bytes]:
        yield self.first
        while True:
            time.sleep(self.pause)
            yield self.piece


SLOW = {
    "headers": Endless(b"HTTP/1.1 200 so\r\n", b"x-more: 1\r\n"),
    "one header": Endless(b"HTTP/1.1 200 so\r\nx: ", b"x"),
    "promises": Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "body": Endless(b"HTTP/1.1 200 so\r\ncontent-length: 1000000\r\n\r\n", b" "),
    "chunks": Endless(b"HTTP/1.1 200 so\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("name", SLOW)
def test_the_timeout_bounds_the_whole_answer(
    says: Any, make: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(vllm_client, "FIRST_LOOK", 0.0)
    generator = make(says(SLOW[name]), timeout=0.3)
    begun = time.monotonic()
    with pytest.raises(EngineUnreachable, match="ReadTimeout"):
        generator.complete(PROMPT, CONSTRAINT)
    assert time.monotonic() - begun < 20  # some tries, on a busy machine; the drip has no end


def test_an_endless_answer_is_cut(says: Any, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MOST_BYTES", 1 << 20)
    head = b"HTTP/1.1 200 so\r\ncontent-length: 1000000000000\r\n\r\n"
    with pytest.raises(EngineUnreachable, match="longer than 1 MiB"):
        make(says(Endless(head, b" " * 65536, pause=0))).complete(PROMPT, CONSTRAINT)


def test_a_packed_answer_is_not_unpacked(says: Any, make: Make) -> None:
    packed = gzip.compress(b" " * 50_000_000)
    head = f"HTTP/1.1 200 so\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
    with pytest.raises(EngineUnreachable, match=r"Unicode|JSON"):
        make(says([head.encode(), packed])).complete(PROMPT, CONSTRAINT)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_nobody_else_is_asked(
    says: Any, server: FakeServer, make: Make, code: int
) -> None:
    head = f"HTTP/1.1 {code} so\r\nlocation: {server.url}/v1/chat\r\ncontent-length: 0\r\n\r\n"
    generator = make(says([head.encode()]))
    with pytest.raises(EngineError, match=f"redirects to '{server.url}/v1/chat'") as caught:
        generator.complete(PROMPT, CONSTRAINT)
    assert "--endpoint" in caught.value.hint
    assert not caught.value.retryable
    assert generator.metrics() == ServerMetrics()
    assert server.bodies == []


def test_a_health_check_follows_no_redirect(says: Any, server: FakeServer) -> None:
    head = f"HTTP/1.1 302 so\r\nlocation: {server.url}/health\r\ncontent-length: 0\r\n\r\n"
    assert is_healthy(server.url)
    assert not is_healthy(says([head.encode()]))


@pytest.mark.parametrize(
    ("host", "here"),
    [
        *(("127.0.0.1", True), ("127.0.0.2", True), ("127.255.255.254", True), ("::1", True)),
        *(("localhost", True), ("LOCALHOST.", True), ("gpu.localhost", True), ("127.1", True)),
        *(("2130706433", True), ("0x7f000001", True), ("::ffff:127.0.0.9", True)),
        *(("0.0.0.0", True), ("::", True), ("0:0:0:0:0:0:0:1", True)),
        *(("128.0.0.1", False), ("10.0.0.1", False), ("gpu1", False), ("127.0.0.1.nip.io", False)),
        *(("localhost.evil", False), ("::2", False), ("notlocalhost", False)),
    ],
)
def test_this_machine_in_all_notations(host: str, here: bool) -> None:
    assert is_this_machine(host) is here


PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the variables of proxies, and no others."""
    for name in (*PROXIES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    def put(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return put


def test_a_server_elsewhere_is_asked_through_the_proxy_which_is_named(
    server: FakeServer, make: Make, proxies: Callable[..., None]
) -> None:
    proxies(HTTP_PROXY=server.url.replace("://", "://ann:canary@"))
    generator = make("http://192.0.2.1:8000")
    assert generator.complete(PROMPT, CONSTRAINT).text == '"wallet"'
    (note,) = generator.notes
    assert f"through the proxy {server.url} that HTTP_PROXY names" in note
    assert "canary" not in note


@pytest.mark.parametrize("host", ["127.0.0.2", "127.255.255.254", "localhost"])
def test_no_proxy_reads_what_is_said_to_this_machine(
    server: FakeServer, make: Make, proxies: Callable[..., None], host: str
) -> None:
    proxies(HTTP_PROXY=server.url, ALL_PROXY=server.url)
    generator = make(dead_url().replace("127.0.0.1", host))
    with pytest.raises(EngineUnreachable):
        generator.complete(PROMPT, CONSTRAINT)
    assert server.bodies == []
    assert generator.notes == ()


def test_a_dead_proxy_is_named_in_the_error(make: Make, proxies: Callable[..., None]) -> None:
    proxies(all_proxy=dead_url())
    with pytest.raises(EngineUnreachable, match=re.escape("that all_proxy names")):
        make("http://192.0.2.1:8000").complete(PROMPT, CONSTRAINT)


def test_which_proxy_there_is(proxies: Callable[..., None]) -> None:
    proxies(HTTPS_PROXY="proxy:3128", NO_PROXY="near.example,10.0.0.1")
    found = proxy_for("https://far.example")
    assert found is not None
    assert (found.url, found.shown, found.variable) == (*["http://proxy:3128"] * 2, "HTTPS_PROXY")
    assert proxy_for("http://far.example") is None
    assert proxy_for("https://api.near.example:8000") is None
    assert proxy_for("https://10.0.0.1") is None


def test_a_proxy_of_another_kind_is_refused(make: Make, proxies: Callable[..., None]) -> None:
    proxies(HTTP_PROXY="gopher://ann:canary@proxy:70")
    with pytest.raises(ConfigError, match="gopher://proxy:70 of HTTP_PROXY") as caught:
        make("http://192.0.2.1:8000")
    assert "canary" not in caught.value.message + caught.value.hint


def test_a_date_that_is_none_asks_for_no_wait() -> None:
    for said in ("Mon, 01 Jan 0001 00:00:00 +2359", "Fri, 31 Dec 9999 23:59:59 -2359", "1 x 99999"):
        assert vllm_client.retry_after({"retry-after": said}) >= 0


def test_answers_are_json_that_others_can_read(server: FakeServer, make: Make) -> None:
    """No number of the server's comes out as NaN or Infinity, which JSON does not know."""
    server.behave = lambda body: (200, _answer(logprob=math.nan, prompt_tokens=math.inf))
    answer = make(server.url).complete(PROMPT, CONSTRAINT)
    json.dumps([answer.prompt_tokens, [each.logprob for each in answer.logprobs]], allow_nan=False)
