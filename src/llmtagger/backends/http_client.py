"""HTTP to servers that may lie: an answer is bounded in time and in size, and is no redirect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmtagger.backends.proxies import Proxy
from llmtagger.errors import ConfigError

if TYPE_CHECKING:
    from httpx2 import BaseTransport

MOST_BYTES = 8 << 20  # of one answer; 20,000 tokens with their log-probabilities take 4 MiB
CONNECT = 5.0  # s
_REDIRECTS = range(300, 400)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered: its code, its headers by lower-case names, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_success(self) -> bool:
        """Whether the code says so."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8, whatever encoding the server claims."""
        return self.body.decode("utf-8", "replace")


class Redirected(Exception):
    """The server sends us elsewhere, with what we would say there: prompts and the key."""

    def __init__(self, target: str) -> None:
        super().__init__(f"it sends us on to {target}")
        self.target = target


class TooLong(Exception):
    """The answer is longer than any honest one."""


class HttpClient:
    """Asks one server; each request, with its whole answer, may take `timeout` seconds.

    Errors are those of httpx2, and `Redirected` and `TooLong`.
    """

    def __init__(
        self, base: str, headers: Mapping[str, str], timeout: float, proxy: Proxy | None
    ) -> None:
        from httpx2 import Client, Timeout

        self._timeout = timeout
        self._deadline = _Deadline()
        self._client = Client(
            base_url=base,
            headers={"accept-encoding": "identity", **headers},
            timeout=Timeout(timeout, connect=CONNECT),
            transport=_transport(proxy, self._deadline),
            trust_env=False,  # the proxy is chosen already
        )

    def get(self, url: str, within: float | None = None) -> Reply:
        """What the server says at `url`, relative to the base or not, `within` fewer seconds."""
        return self._send("GET", url, None, within)

    def post(self, url: str, body: Mapping[str, Any]) -> Reply:
        """What the server answers to `body`, sent as JSON."""
        return self._send("POST", url, body, None)

    def close(self) -> None:
        """Closes every connection; requests that are under way fail."""
        self._client.close()

    def _send(
        self, method: str, url: str, body: Mapping[str, Any] | None, within: float | None
    ) -> Reply:
        with (
            self._deadline.after(min(self._timeout, within or self._timeout)),
            self._client.stream(method, url, json=body) as response,
        ):
            if response.status_code in _REDIRECTS:
                raise Redirected(response.headers.get("location", "nowhere")[:200])
            whole = bytearray()
            for piece in response.iter_raw():  # never unpacked: a little may stand for gigabytes
                whole += piece
                if len(whole) > MOST_BYTES:
                    raise TooLong(f"the answer is longer than {MOST_BYTES >> 20} MiB")
            return Reply(response.status_code, response.headers, bytes(whole))


class _Deadline(threading.local):
    """The moment by which what this thread has asked must be answered."""

    latest = float("inf")
    seconds = 0.0

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        self.latest, self.seconds = time.monotonic() + seconds, seconds
        try:
            yield
        finally:
            del self.latest

    def left(self, timeout: float | None) -> float:
        """The shorter of `timeout` and what is left; a timeout where nothing is."""
        from httpcore2 import ReadTimeout

        left = self.latest - time.monotonic()
        if left <= 0:
            raise ReadTimeout(f"the answer was not complete after {self.seconds:g} s")
        return left if timeout is None else min(timeout, left)


class _PunctualStream:
    """A connection on which no sequence of reads and writes outlives the deadline."""

    def __init__(self, stream: Any, deadline: _Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        read: bytes = self._stream.read(max_bytes, self._deadline.left(timeout))
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _PunctualStream:
        left = self._deadline.left(timeout)
        secured = self._stream.start_tls(ssl_context, server_hostname, left)
        return _PunctualStream(secured, self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _PunctualNetwork:
    """Opens such connections; httpx counts a timeout from one piece of an answer to the next."""

    def __init__(self, network: Any, deadline: _Deadline) -> None:
        self._network, self._deadline = network, deadline

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, **options: Any
    ) -> _PunctualStream:
        left = self._deadline.left(timeout)
        stream = self._network.connect_tcp(host, port, timeout=left, **options)
        return _PunctualStream(stream, self._deadline)


def _transport(proxy: Proxy | None, deadline: _Deadline) -> BaseTransport:
    from httpx2 import HTTPTransport, Limits

    limits = Limits(max_connections=None, max_keepalive_connections=None)
    try:
        transport = HTTPTransport(limits=limits, proxy=proxy.url if proxy else None)
    except (ValueError, ImportError) as error:
        assert proxy is not None
        raise ConfigError(
            f"The proxy {proxy.shown} of {proxy.variable} cannot be used.",
            hint=f"Set {proxy.variable} to http://HOST:PORT, or name the server in NO_PROXY.",
        ) from error
    pool: Any = transport._pool  # httpx2 has no public way to hand a network in
    pool._network_backend = _PunctualNetwork(pool._network_backend, deadline)
    return transport
