"""Model answers that are kept: what was asked once is not asked again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Self

from llmtagger.adapters import Tuned
from llmtagger.asking import Waiting, model_source
from llmtagger.config import EngineSettings
from llmtagger.datatypes import Completion, Constraint, Prompt, TokenLogprob
from llmtagger.errors import EngineUnreachable, RunError
from llmtagger.protocols import Generator

_SCHEMA = """
CREATE TABLE IF NOT EXISTS checked_answers (
    asked TEXT PRIMARY KEY, said TEXT NOT NULL, checksum TEXT NOT NULL
) STRICT
"""


class KeptAnswers:
    """A generator that looks in a file first, and opens the real one when an answer is missing.

    An answer belongs to the model's `identity`, the messages and the constraint. `asked` counts the
    answers that the real generator gave. Use it with `with`; any number of threads may ask.
    `RunError` where the file is damaged: an answer that was altered is not taken for the model's.
    """

    def __init__(
        self, path: Path, identity: str, concurrency: int, opened: Callable[[ExitStack], Generator]
    ) -> None:
        self._model = identity
        self._concurrency = concurrency
        self._opened = opened
        self._stack = ExitStack()
        self._generator: Generator | None = None
        self._lock = threading.Lock()
        self._path = path
        with self._usable():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._kept = sqlite3.connect(path, check_same_thread=False)
            try:
                self._kept.execute(_SCHEMA)
            except BaseException:
                self._kept.close()
                raise
        self._closed = False
        self.asked = 0

    @property
    def model(self) -> str:
        """What the model is known by, its weights' fingerprint included."""
        return self._model

    @property
    def concurrency(self) -> int:
        """Questions that may be open at once."""
        return self._concurrency

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:  # SQLite does not survive being closed under a thread that uses it
            self._closed = True
            self._kept.close()
        self._stack.close()

    def complete(self, prompt: Prompt, constraint: Constraint) -> Completion:
        """The kept answer, else a fresh one, which is then kept."""
        key = self._key(prompt, constraint)
        with self._lock:
            if self._closed:  # by another thread, whose question failed
                raise EngineUnreachable("the model was stopped meanwhile", hint="ask again")
            with self._usable():
                query = "SELECT said, checksum FROM checked_answers WHERE asked = ?"
                row = self._kept.execute(query, (key,)).fetchone()
            if row is None and self._generator is None:
                self._generator = self._opened(self._stack)
        if row is not None:
            return self._read(key, *row)
        assert self._generator is not None
        completion = self._generator.complete(prompt, constraint)
        with self._lock:
            self.asked += 1
            if not self._closed:
                said = _written(completion)
                row = (key, said, _checksum(key, said))
                with self._usable():
                    self._kept.execute("REPLACE INTO checked_answers VALUES (?, ?, ?)", row)
                    self._kept.commit()
        return completion

    def _read(self, key: str, said: str, checksum: str) -> Completion:
        try:
            if checksum == _checksum(key, said):
                return _read(said)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._damaged("an answer cannot be read") from error
        raise self._damaged("an answer has been altered")

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """SQLite's complaints, and the disk's, with the remedy."""
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError, OSError) as error:
            raise self._damaged(str(error)) from error

    def _damaged(self, why: str) -> RunError:
        return RunError(
            f"the kept answers {self._path} cannot be used: {why}",
            hint="if the disk has room, remove that file: what it held is asked again",
        )

    def _key(self, prompt: Prompt, constraint: Constraint) -> str:
        asked = [self._model, prompt.messages, constraint.schema, constraint.max_tokens]
        text = json.dumps(asked, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def kept_answers(
    model: str,
    endpoints: Sequence[str],
    engine: EngineSettings,
    cache: Path,
    waiting: Waiting,
    tuned: Tuned | None = None,
) -> KeptAnswers:
    """The answers of a model, kept in the folder `cache`; a server starts when one is missing."""
    source = model_source(model, endpoints, engine, tuned)
    return KeptAnswers(
        cache / "answers.sqlite",
        source.identity,
        engine.concurrency,
        lambda stack: stack.enter_context(source.open(waiting)).generator,
    )


def _checksum(key: str, said: str) -> str:
    return hashlib.sha256(f"{key} {said}".encode()).hexdigest()[:16]


def _written(completion: Completion) -> str:
    record = asdict(completion)
    record["logprobs"] = [[each.token.hex(), each.logprob] for each in completion.logprobs]
    return json.dumps(record)


def _read(text: str) -> Completion:
    record = json.loads(text)
    record["logprobs"] = tuple(
        TokenLogprob(bytes.fromhex(token), logprob) for token, logprob in record["logprobs"]
    )
    return Completion(**record)
