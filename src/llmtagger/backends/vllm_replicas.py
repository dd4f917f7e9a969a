"""Shares requests out over several servers: as many as each can take, none to those that fail."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from llmtagger.backends.api_key import api_key
from llmtagger.backends.http_client import HttpClient
from llmtagger.backends.proxies import proxy_for
from llmtagger.backends.window import Window
from llmtagger.errors import ConfigError

FIRST_REST, LONGEST_REST = 1.0, 60.0  # s
LONGEST_REST_OF_ALL = 5.0  # s; where no server is well, there is no better one to wait for
TRIP = 3  # failures in a row, after which a server rests
WAIT = 0.1  # s between looks for a server that has rested


class Replica:
    """One server: its address, a client for it, and how it has fared."""

    def __init__(self, endpoint: str, timeout: float, most: int) -> None:
        self.root = _root(endpoint)
        self._key = api_key()
        self.proxy = proxy_for(self.root)
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        self.client = HttpClient(f"{self.root}/v1", headers, timeout, self.proxy)
        self.window = Window(most)
        self.in_flight = 0
        self.failures = 0  # in a row
        self.rest = 0.0  # s; 0 while it is well
        self.resting_since = 0.0
        self.tried = False  # whether a request is finding out if it is well again
        self.closed_until = 0.0  # it said when to come back

    def without_key(self, words: str) -> str:
        """What a server said; some quote the key that they were sent."""
        return words.replace(self._key, "…") if self._key else words


class Replicas:
    """The servers behind one generator, each sent `most` requests at once or fewer.

    Safe to use from many threads. A server that failed three times in a row, or that nothing
    reaches, rests 1 s, and twice as long each further time, up to a minute; up to 5 s where no
    server is well. After its rest one request at a time tries it, until one succeeds.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        timeout: float,
        most: int = 64,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not endpoints:
            raise ConfigError("No endpoint is given.", hint="Name one: --endpoint http://HOST:PORT")
        self.all = [Replica(endpoint, timeout, most) for endpoint in dict.fromkeys(endpoints)]
        self._clock = clock
        self._changed = threading.Condition()

    @contextmanager
    def lend(
        self, only: Replica | None = None, avoid: Replica | None = None
    ) -> Iterator[Replica | None]:
        """The usable replica with the fewest requests in flight, `avoid` if there is no other.

        None where none is usable, nor becomes so within a tenth of a second.
        """
        with self._changed:
            chosen = self._choose(only, avoid)
            if chosen is None:
                self._changed.wait(WAIT)
                chosen = self._choose(only, avoid)
            if chosen is not None:
                chosen.in_flight += 1
                tries = chosen.rest > 0
                chosen.tried = chosen.tried or tries
        try:
            yield chosen
        finally:
            if chosen is not None:
                with self._changed:
                    chosen.in_flight -= 1
                    chosen.tried = chosen.tried and not tries
                    self._changed.notify()

    def _choose(self, only: Replica | None, avoid: Replica | None) -> Replica | None:
        usable = [replica for replica in ([only] if only else self.all) if self._is_usable(replica)]
        return min(usable, key=lambda each: (each is avoid, each.in_flight), default=None)

    def failed(self, replica: Replica, *, unreached: bool = False) -> None:
        """Lets the replica rest, after some failures or if it was `unreached`.

        Failures during a rest, of requests sent before, count once.
        """
        with self._changed:
            replica.failures += 1
            tripped = unreached or replica.rest > 0 or replica.failures >= TRIP
            if tripped and self._has_rested(replica):
                replica.rest = min(max(FIRST_REST, 2 * replica.rest), LONGEST_REST)
                replica.resting_since = self._clock()

    def overloaded(self, replica: Replica, sent: float, wait: float = 0.0) -> None:
        """A request that was `sent` then was too much: send fewer, and none for `wait` seconds."""
        with self._changed:
            replica.window.halve(sent, self._clock())
            replica.closed_until = max(replica.closed_until, self._clock() + wait)

    def succeeded(self, replica: Replica) -> None:
        """The replica is well."""
        with self._changed:
            replica.failures = 0
            replica.rest = 0.0
            replica.window.widen()
            self._changed.notify()

    def now(self) -> float:
        """The time by which rests are counted, in seconds."""
        return self._clock()

    def is_any_busy(self) -> bool:
        """Whether some request is in flight, so that an answer may still come."""
        with self._changed:
            return any(replica.in_flight for replica in self.all)

    def close(self) -> None:
        """Closes every connection."""
        for replica in self.all:
            replica.client.close()

    def _is_usable(self, replica: Replica) -> bool:
        if self._clock() < replica.closed_until or replica.in_flight >= replica.window.size:
            return False
        return not replica.rest or (self._has_rested(replica) and not replica.tried)

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
