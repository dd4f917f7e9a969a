"""A server on loopback that answers at once, from the prompt's text, and fails where it is told to.

What it says depends on the prompt alone. Whether it fails is a matter of its plan, which is asked
with the number of the product and how often that product was asked for before.
"""

from __future__ import annotations

import json
import math
import random
import re
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "fake-model"
_NUMBER = re.compile(r".* no\. (\d+)$", re.MULTILINE | re.DOTALL)  # the last one is the product's
_PIECES = 40  # of a dripping answer


class Fault(StrEnum):
    """What may be wrong with an answer."""

    TOO_MANY = "429"
    BROKEN = "500"
    BUSY = "503"
    REFUSED = "400"
    HANG = "hang"
    DRIP = "drip"
    CUT = "cut"
    WRONG_JSON = "wrong-json"
    NO_JSON = "no-json"
    LENGTH = "length"
    EMPTY = "empty"


class Lie(StrEnum):
    """What may be untrue in an answer that is otherwise good."""

    NAN = "logprob NaN"
    OVERFLOW = "logprob 710"
    INFINITE = "logprob -Infinity"
    WORD = "logprob a word"
    HUGE_TOKEN = "a token of 10 TB"
    USAGE_INFINITE = "usage Infinity"
    USAGE_NEGATIVE = "usage below 0"
    USAGE_WORD = "usage a word"
    NO_TOKENS = "tokens are a number"


Plan = Callable[[str, int], "Fault | Lie | None"]


def never(product: str, before: int) -> Fault | None:
    """No faults."""
    return None


def seeded(seed: int, share: float, *faults: Fault) -> Plan:
    """Some of `faults` at that share of the requests, whatever the order in which they come."""

    def plan(product: str, before: int) -> Fault | None:
        dice = random.Random(f"{seed} {product} {before}")
        return dice.choice(faults) if dice.random() < share else None

    return plan


@dataclass(frozen=True, slots=True)
class Request:
    """One request for an answer: which product, by which client (its key), when, which fault."""

    product: str
    client: str
    at: float
    fault: Fault | Lie | None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is part of these tests."""


class FakeServer:
    """Use it with `with`. `hang` and `drip` are seconds; more than `room` at once are too many."""

    def __init__(
        self,
        plan: Plan = never,
        *,
        hang: float = 5.0,
        drip: float = 5.0,
        retry_after: str | None = None,
        room: int = 10_000,
        seconds: float = 0.0,
    ) -> None:
        self.plan = plan
        self.hang, self.drip, self.retry_after = hang, drip, retry_after
        self.room, self.seconds = room, seconds
        self.requests: list[Request] = []
        self.watch: Callable[[int], None] = lambda number: None  # called as requests arrive
        self.port = 0
        self._before: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._open: set[socket.socket] = set()
        self._at_work = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeServer:
        self.up()
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def up(self) -> None:
        """Listen; again at the same port after `down`."""
        self._ended.clear()
        self._http = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Vanish, open connections included."""
        self._ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def asked(self, client: str | None = None) -> list[str]:
        """The products that were asked for, as often as they were."""
        return [each.product for each in self.requests if client in (None, each.client)]

    def _take_down(self, body: dict[str, Any], client: str) -> Fault | Lie | None:
        found = _NUMBER.search(body["messages"][-1]["content"])
        product = found.group(1) if found else ""
        with self._lock:
            before = self._before[product]
            self._before[product] += 1
            fault = self.plan(product, before) if product else None
            if self._at_work > self.room:
                fault = Fault.TOO_MANY
            self.requests.append(Request(product, client, time.monotonic(), fault))
            number = len(self.requests)
        self.watch(number)
        return fault


def answer_to(body: dict[str, Any]) -> str:
    """What the model says: one to three of the tags on offer, by a checksum of the prompt."""
    schema = body["structured_outputs"]["json"]
    if "enum" in schema:
        return json.dumps(schema["enum"][0], ensure_ascii=False)
    offered: list[str] = schema["items"]["enum"]
    sum_ = zlib.crc32(json.dumps(body["messages"]).encode())
    chosen = {offered[(sum_ >> shift) % len(offered)]: None for shift in (0, 5, 10)}
    return json.dumps(list(chosen)[: 1 + sum_ % 3], ensure_ascii=False)


def completion(text: str, finish_reason: str = "stop") -> dict[str, Any]:
    """A chat completion; each character is a token, the rarer the less likely."""
    tokens = [
        {"token": char, "logprob": -(ord(char) % 32) / 64, "bytes": list(char.encode())}
        for char in text
    ]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
                "logprobs": {"content": [each | {"top_logprobs": []} for each in tokens]},
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": len(tokens), "total_tokens": 0},
    }


def lied(lie: Lie, answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with that lie in it."""
    logprobs = answer["choices"][0]["logprobs"]
    token = logprobs["content"][len(logprobs["content"]) // 2]
    told: dict[Lie, tuple[dict[str, Any], str, object]] = {
        Lie.NAN: (token, "logprob", math.nan),
        Lie.OVERFLOW: (token, "logprob", 710.0),
        Lie.INFINITE: (token, "logprob", -math.inf),
        Lie.WORD: (token, "logprob", "likely"),
        Lie.HUGE_TOKEN: (token, "bytes", 10**13),
        Lie.USAGE_INFINITE: (answer["usage"], "prompt_tokens", math.inf),
        Lie.USAGE_NEGATIVE: (answer["usage"], "completion_tokens", -5),
        Lie.USAGE_WORD: (answer["usage"], "prompt_tokens", "many"),
        Lie.NO_TOKENS: (logprobs, "content", 7),
    }
    place, name, value = told[lie]
    place[name] = value
    return answer


def _handler(fake: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            with fake._lock:
                fake._open.add(self.connection)

        def finish(self) -> None:
            with fake._lock:
                fake._open.discard(self.connection)
            super().finish()

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._say(200, b"")
            else:
                models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
                self._say(200, json.dumps(models).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            client = self.headers.get("authorization", "").removeprefix("Bearer ")
            with fake._lock:
                fake._at_work += 1
            try:
                fault = fake._take_down(body, client)
                if fault is not Fault.TOO_MANY and fake.seconds:
                    time.sleep(fake.seconds)
                self._answer(body, fault)
            finally:
                with fake._lock:
                    fake._at_work -= 1

        def _answer(self, body: dict[str, Any], fault: Fault | Lie | None) -> None:
            good = json.dumps(completion(answer_to(body))).encode()
            if fault in (Fault.TOO_MANY, Fault.BROKEN, Fault.BUSY, Fault.REFUSED):
                error = {"error": {"message": f"it is {fault.name.lower()}", "code": int(fault)}}
                self._say(int(fault), json.dumps(error).encode())
            elif fault is Fault.HANG:
                fake._ended.wait(fake.hang)
                self.close_connection = True
            elif fault is Fault.DRIP:
                self._drip(good)
            elif fault is Fault.CUT:
                self._send(self._head(200, len(good)) + good[: len(good) // 2])
                self.close_connection = True
            elif fault is Fault.WRONG_JSON:
                self._say(200, b'{"detail": "something else"}')
            elif fault is Fault.NO_JSON:
                self._say(200, b"<html>welcome</html>")
            elif fault is Fault.LENGTH:
                self._say(200, json.dumps(completion('["', "length")).encode())
            elif isinstance(fault, Lie):
                self._say(200, json.dumps(lied(fault, completion(answer_to(body)))).encode())
            elif fault is Fault.EMPTY:
                self._say(200, json.dumps(completion("") | {"choices": []}).encode())
            else:
                self._say(200, good)

        def _drip(self, raw: bytes) -> None:
            """Always something, never enough."""
            self._send(self._head(200, len(raw)))
            step = max(1, len(raw) // _PIECES)
            for start in range(0, len(raw), step):
                if fake._ended.wait(fake.drip / _PIECES):
                    break
                self._send(raw[start : start + step])

        def _say(self, code: int, raw: bytes) -> None:
            self._send(self._head(code, len(raw)) + raw)

        def _head(self, code: int, length: int) -> bytes:
            lines = [f"HTTP/1.1 {code} so", "content-type: application/json"]
            if code in (429, 503) and fake.retry_after is not None:
                lines.append(f"retry-after: {fake.retry_after}")
            return "\r\n".join([*lines, f"content-length: {length}", "", ""]).encode()

        def _send(self, raw: bytes) -> None:
            self.wfile.write(raw)
            self.wfile.flush()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
