"""Shares requests out over several servers, and leaves out the ones that fail for a while."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llmtagger.backends.api_key import api_key
from llmtagger.errors import ConfigError

if TYPE_CHECKING:
    from openai import OpenAI

FIRST_REST, LONGEST_REST = 1.0, 60.0  # s
LONGEST_REST_OF_ALL = 5.0  # s; where no server is well, there is no better one to wait for


class Replica:
    """One server: its address, a client for it, and how it has fared."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        self.root = _root(endpoint)
        self._key = api_key()
        self.client = _client(self.root, self._key, timeout)
        self.in_flight = 0
        self.rest = 0.0  # s; 0 while it is well
        self.resting_since = 0.0

    def without_key(self, words: str) -> str:
        """What a server said; some quote the key that they were sent."""
        return words.replace(self._key, "…") if self._key else words


class Replicas:
    """The servers behind one generator. Safe to use from many threads.

    A failed server rests 1 s, and twice as long each further time, up to a minute; up to 5 s where
    no server is well. After its rest one request at a time tries it, until one succeeds.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not endpoints:
            raise ConfigError("No endpoint is given.", hint="Name one: --endpoint http://HOST:PORT")
        self.all = [Replica(endpoint, timeout) for endpoint in dict.fromkeys(endpoints)]
        self._clock = clock
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, only: Replica | None = None) -> Iterator[Replica | None]:
        """The usable replica with the fewest requests in flight; None where all are resting."""
        with self._lock:
            usable = [r for r in ([only] if only else self.all) if self._is_usable(r)]
            chosen = min(usable, key=lambda replica: replica.in_flight, default=None)
            if chosen is not None:
                chosen.in_flight += 1
        try:
            yield chosen
        finally:
            if chosen is not None:
                with self._lock:
                    chosen.in_flight -= 1

    def failed(self, replica: Replica) -> None:
        """Lets the replica rest. Failures during a rest, of requests sent before, count once."""
        with self._lock:
            if self._has_rested(replica):
                replica.rest = min(max(FIRST_REST, 2 * replica.rest), LONGEST_REST)
                replica.resting_since = self._clock()

    def succeeded(self, replica: Replica) -> None:
        """The replica is well again."""
        with self._lock:
            replica.rest = 0.0

    def is_any_busy(self) -> bool:
        """Whether some request is in flight, so that an answer may still come."""
        with self._lock:
            return any(replica.in_flight for replica in self.all)

    def close(self) -> None:
        """Closes every connection."""
        for replica in self.all:
            replica.client.close()

    def _is_usable(self, replica: Replica) -> bool:
        if not replica.rest:
            return True
        return self._has_rested(replica) and not replica.in_flight

    def _has_rested(self, replica: Replica) -> bool:
        any_well = any(not other.rest for other in self.all)
        rest = replica.rest if any_well else min(replica.rest, LONGEST_REST_OF_ALL)
        return not replica.rest or self._clock() >= replica.resting_since + rest


def _root(endpoint: str) -> str:
    """The address without a path: `http://host:8000/v1/` and `http://host:8000` are the same.

    `ConfigError` where it is none, or holds a password or a key: addresses are shown and logged.
    """
    endpoint = endpoint.strip()
    public = re.sub(r"^(\w+://)?.*@", r"\1", endpoint, flags=re.DOTALL)
    public = re.split("[?#]", public, maxsplit=1)[0]
    if public != endpoint:
        raise ConfigError(
            f"The address of the server {public!r} has a name, a password or a key in it.",
            hint="Write it as http://HOST:PORT, and the key into LLMTAGGER_API_KEY or a file that"
            " LLMTAGGER_API_KEY_FILE names.",
        )
    root = public.rstrip("/").removesuffix("/v1")
    try:
        parts = urlsplit(root)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError(
            f"{endpoint!r} is not the address of a server.",
            hint="Write it as http://HOST:PORT or http://HOST:PORT/v1",
        )
    return root


def _client(root: str, key: str | None, timeout: float) -> OpenAI:
    from openai import DefaultHttpxClient, OpenAI, Timeout

    loopback = urlsplit(root).hostname in ("127.0.0.1", "localhost", "::1")
    limits = Timeout(timeout, connect=5.0)
    return OpenAI(
        base_url=f"{root}/v1",
        api_key=key or "none",
        timeout=limits,
        max_retries=0,  # retrying is the generator's, which knows the other replicas
        http_client=DefaultHttpxClient(timeout=limits, trust_env=not loopback),
    )
