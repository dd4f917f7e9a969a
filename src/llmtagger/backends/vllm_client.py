"""A `Generator` that asks vLLM servers over their OpenAI-compatible interface."""

from __future__ import annotations

import json
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from llmtagger.backends.completions import NoCompletion, read_completion
from llmtagger.backends.http_client import Redirected, Reply, TooLong
from llmtagger.backends.vllm_replicas import Replica, Replicas
from llmtagger.datatypes import Completion, Constraint, Prompt
from llmtagger.errors import (
    EngineError,
    EngineUnreachable,
    EngineUntrusted,
    ModelMissing,
    RequestFailed,
    RequestRefused,
)

if TYPE_CHECKING:
    from httpx2 import HTTPError

T = TypeVar("T")
FIRST_LOOK = 5.0  # s of patience at the start, where a wrong address is likelier than an outage
TRIES = 5  # failures of one request, after which it is given up where others succeed
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 16.0  # s before a request is repeated
METRICS = 5.0  # s for counters that are only shown
MOST_COUNTED = 2.0**63  # tokens; no counter of an honest server comes so far
BUSY = (429, 503)
SEED = 0
_SAMPLE = re.compile(  # a line of /metrics
    r"^([\w:]+)(?:\{[^}\n]*\})? ([0-9.eE+]{1,40})(?!\S)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class ServerMetrics:
    """Prompt tokens looked up in the servers' prefix caches, and those found; since their start."""

    queries: float = 0.0
    hits: float = 0.0

    def hit_rate(self, since: ServerMetrics | None = None) -> float | None:
        """The share found, 0..1, from `since` on; None where the counters say none."""
        start = since or ServerMetrics()
        queries, hits = self.queries - start.queries, self.hits - start.hits
        return hits / queries if 0 <= hits <= queries and queries > 0 else None


class VllmGenerator:
    """Answers prompts with one model on one or more servers.

    Seconds: an answer may take `timeout`, and so may the repetitions of one request where others
    are answered; `patience` is how long all servers may be away, unless they are `gone` for good.

    >>> with_two = VllmGenerator(["http://gpu1:8000", "http://gpu2:8000/v1"])
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        model: str | None = None,
        concurrency: int = 64,
        timeout: float = 300,
        patience: float = 60,
        gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self._closed = threading.Event()
        self._replicas = Replicas(endpoints, timeout, concurrency)
        self._timeout = timeout
        self._patience = patience
        self._gone = gone
        self._concurrency = concurrency
        try:
            self._model = model or self._ask_model()
        except BaseException:
            self.close()
            raise

    @property
    def model(self) -> str:
        """The name under which the servers know the model."""
        return self._model

    @property
    def concurrency(self) -> int:
        """How many requests to keep in flight."""
        return self._concurrency

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        """One answer. Moves to another server, or waits for one, where one fails.

        Raises `RequestRefused` where the server refuses it, `RequestFailed` where it fails again
        and again although servers answer others, `EngineUnreachable` where none answers.
        """
        return self._insist(lambda r: self._ask(r, prompt, constraint), self._patience)

    def probe(self) -> None:
        """Makes every server say something that only a grammar could make it say."""
        dead: list[EngineUnreachable] = []
        for replica in self._replicas.all:
            try:
                patience = min(self._patience, FIRST_LOOK)
                self._insist(self._check_grammar, patience, only=replica, may_fail=False)
            except EngineUnreachable as error:
                dead.append(error)
        if len(dead) == len(self._replicas.all):
            raise dead[0]

    def metrics(self) -> ServerMetrics:
        """The prefix caches' counters, summed over the servers that publish them."""
        texts = [_metrics_text(replica) for replica in self._replicas.all]
        return ServerMetrics(
            queries=sum(_counter(text, "vllm:prefix_cache_queries_total") for text in texts),
            hits=sum(_counter(text, "vllm:prefix_cache_hits_total") for text in texts),
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the way to the servers: the proxies that read along."""
        return tuple(_ways(self._replicas.all))

    def close(self) -> None:
        """Closes the connections; requests that are under way fail instead of being repeated."""
        self._closed.set()
        self._replicas.close()

    def _ask_model(self) -> str:
        names = self._insist(
            lambda replica: _read_names(_loaded(replica.client.get("/models"))),
            min(self._patience, FIRST_LOOK),
            may_fail=False,
        )
        if not names:
            raise ModelMissing(
                f"{self._replicas.all[0].root} serves no model.", hint="Name one with --model."
            )
        return names[0]

    def _ask(self, replica: Replica, prompt: Prompt, constraint: Constraint) -> Completion:
        begun = time.perf_counter()
        grammar = {"json": dict(constraint.schema), "disable_any_whitespace": True}
        body = {
            "model": self._model,
            "messages": [{"role": role, "content": text} for role, text in prompt.messages],
            "max_tokens": constraint.max_tokens,
            "temperature": 0,
            "seed": SEED,
            "logprobs": True,
            "structured_outputs": grammar,
        }
        answer = _loaded(replica.client.post("/chat/completions", body))
        return read_completion(answer, self._model, time.perf_counter() - begun)

    def _check_grammar(self, replica: Replica) -> None:
        word = f"验证-{secrets.token_hex(3)}"
        prompt = Prompt((("user", "Say hello."),), "probe", "")
        answer = self._ask(replica, prompt, Constraint({"enum": [word]}, max_tokens=64))
        if answer.text.strip() != json.dumps(word, ensure_ascii=False):
            raise EngineUntrusted(
                f"{replica.root} ignores the grammar: it had to answer {word!r} and answered"
                f" {answer.text[:80]!r}.",
                hint="Use vLLM 0.12 or later, started with --structured-outputs-config"
                ' \'{"backend": "xgrammar"}\'.',
            )

    def _insist(
        self,
        ask: Callable[[Replica], T],
        patience: float,
        only: Replica | None = None,
        *,
        may_fail: bool = True,
    ) -> T:
        """The first answer that some server gives; a refusal is passed on at once.

        If it `may_fail`, the request is given up after some tries, and one more at a server that
        has just answered another.
        """
        proven = False
        began: float | None = None  # of the trouble, if there is any
        last: _Failed | None = None
        attempts = failures = 0
        while True:
            with self._replicas.lend(only, last.replica if last else None) as replica:
                if replica is not None:
                    attempts += 1
                    try:
                        return self._attempt(replica, ask)
                    except _Failed as failure:
                        last = failure
                        failures += not failure.busy
            if self._closed.is_set():
                raise self._unreachable(last, only) from last
            busy = self._replicas.is_any_busy()
            if replica is None and busy:
                continue  # waiting for room, or for what those in flight find out
            now = self._replicas.now()
            began = now if began is None else began
            tried = failures >= TRIES or now - began >= self._timeout
            if may_fail and last is not None and tried:
                if proven:
                    raise _given_up(attempts, last) from last.cause
                proven = self._is_well()
            if not busy and (now - began >= patience or self._gone()):
                raise self._unreachable(last, only) from last
            if replica is not None:
                self._closed.wait(_pause(attempts))

    def _is_well(self) -> bool:
        """Whether any server answers another request now."""
        try:
            self._insist(self._check_grammar, FIRST_LOOK, may_fail=False)
        except EngineError:
            return False
        return True

    def _attempt(self, replica: Replica, ask: Callable[[Replica], T]) -> T:
        from httpx2 import HTTPError, TimeoutException

        sent = self._replicas.now()
        try:
            answer = ask(replica)
        except _Status as error:
            if error.code in BUSY:
                self._replicas.overloaded(replica, sent, retry_after(error.headers))
                raise _Failed(replica, error, busy=True) from error
            if error.code < 500:
                raise self._refusal(replica, error) from error
            self._replicas.failed(replica)
            raise _Failed(replica, error) from error
        except HTTPError as error:
            if isinstance(error, TimeoutException):
                self._replicas.overloaded(replica, sent)
            self._replicas.failed(replica, unreached=_is_unreached(error))
            raise _Failed(replica, error) from error
        except Redirected as error:
            raise self._sent_on(replica, error) from error
        # ValueError: no JSON at all; RuntimeError: nested too deep, or the client was closed.
        except (NoCompletion, TooLong, ValueError, RuntimeError) as error:
            self._replicas.failed(replica)
            raise _Failed(replica, error) from error
        self._replicas.succeeded(replica)
        return answer

    def _refusal(self, replica: Replica, error: _Status) -> EngineError:
        words = replica.without_key(str(error))
        if error.code in (401, 403):
            return EngineError(
                f"{replica.root} does not let us in: {words}",
                hint="Set LLMTAGGER_API_KEY to the server's key, or LLMTAGGER_API_KEY_FILE to a"
                " file that holds it.",
            )
        if error.code == 404:
            return ModelMissing(
                f"{replica.root} does not have what we ask for: {words}",
                hint="Leave --model out to take the model that the server has.",
            )
        return RequestRefused(words, hint="Shorten the product or the prompt.")

    def _sent_on(self, replica: Replica, error: Redirected) -> EngineError:
        target = replica.without_key(error.target)
        return EngineError(
            f"{replica.root} redirects to {target!r}, and redirects are not followed: the prompts"
            " and the key would go there.",
            hint="If the model is there, name that address with --endpoint; else check the address"
            " that was given.",
        )

    def _unreachable(self, last: _Failed | None, only: Replica | None) -> EngineUnreachable:
        asked = [only] if only else self._replicas.all
        roots = ", ".join(replica.root for replica in asked)
        why = asked[0].without_key(f" ({last})") if last else ""
        way = "".join(f"; {note}" for note in dict.fromkeys(_ways(asked)))
        return EngineUnreachable(
            f"No server answers at {roots}{why}{way}.",
            hint="Check --endpoint and that the server is up; leave --endpoint out to have"
            " llmtagger start one here. Run the same command to resume.",
        )


def _ways(replicas: Sequence[Replica]) -> Iterator[str]:
    for replica in replicas:
        if replica.proxy is not None:
            yield (
                f"{replica.root} is asked through the proxy {replica.proxy.shown}"
                f" that {replica.proxy.variable} names"
            )


class _Status(Exception):
    """The server answered with a code that is no success; it says why in its own words."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(_server_words(reply))
        self.code = reply.status
        self.headers = reply.headers


class _Failed(Exception):
    """One attempt at one server came to nothing; another may not."""

    def __init__(self, replica: Replica, cause: Exception, busy: bool = False) -> None:
        super().__init__(f"{_named(cause)}: {cause}")
        self.replica = replica
        self.cause = cause
        self.busy = busy


def _named(cause: Exception) -> str:
    """What a person can look up: the code, or the class without our own underscore."""
    return f"HTTP {cause.code}" if isinstance(cause, _Status) else type(cause).__name__.lstrip("_")


def _given_up(attempts: int, last: _Failed) -> RequestFailed:
    why = last.replica.without_key(str(last))
    return RequestFailed(
        f"{attempts} attempts came to nothing, the last one at {last.replica.root} by {why}"[:500],
        hint="The server answers other requests; its log may say what is wrong with this one.",
    )


def _is_unreached(error: HTTPError) -> bool:
    """Whether there was no connection at all; else one was lost on the way."""
    from httpx2 import ConnectError, ConnectTimeout

    return isinstance(error, ConnectError | ConnectTimeout)


def _pause(attempts: int) -> float:
    """Seconds before the next attempt, scattered so that not all come back at once."""
    longest: float = min(FIRST_PAUSE * 2**attempts, LONGEST_PAUSE)
    return longest * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks to wait for, given as such or as a date; else 0."""
    said = headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?", said):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, OverflowError):  # the year 1, or none of this calendar
        return 0.0


def _loaded(reply: Reply) -> Any:
    """What a success says in JSON; any other code is a `_Status`, no JSON a `ValueError`."""
    if not reply.is_success:
        raise _Status(reply)
    return json.loads(reply.body)


def _read_names(models: Any) -> list[str]:
    try:
        return [str(model["id"]) for model in models["data"]]
    except (LookupError, TypeError) as error:
        raise NoCompletion(f"not a list of models: {str(models)[:100]!r}") from error


def _server_words(reply: Reply) -> str:
    """The server's message out of its JSON, else the text as it is, else the code."""
    try:
        body = json.loads(reply.body)
        inner = body.get("error")
        words = inner.get("message") if isinstance(inner, dict) else body.get("message")
    except (ValueError, AttributeError, RecursionError):
        words = reply.text.strip()
    return str(words or f"HTTP {reply.status}")[:500]


def _metrics_text(replica: Replica) -> str:
    from httpx2 import HTTPError

    try:
        reply = replica.client.get(f"{replica.root}/metrics", METRICS)
    except (HTTPError, Redirected, TooLong, RuntimeError):  # RuntimeError: the client was closed
        return ""
    return reply.text if reply.is_success else ""


def _counter(text: str, name: str) -> float:
    """The sum of the counters of that name; what is no count is left out."""
    said = [value for counted, value in _SAMPLE.findall(text) if counted == name]
    return sum(count for each in said if (count := _count(each)) <= MOST_COUNTED)


def _count(said: str) -> float:
    try:
        return float(said)
    except ValueError:
        return 0.0
