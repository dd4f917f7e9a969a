"""Where the model is: servers that run already, or one of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from llmtagger.adapters import Tuned
from llmtagger.config import EngineSettings
from llmtagger.protocols import Generator

if TYPE_CHECKING:
    from llmtagger.backends.vllm_client import VllmGenerator

Waiting = Callable[[str, float], None]  # what the server is doing while it starts, and since when


@dataclass(frozen=True, slots=True)
class Asked:
    """A generator that is ready, and the share of prompt tokens its caches have served since.

    `on_these_cores` says that its model computes on the cores of this very machine.
    """

    generator: Generator
    cache_hit_rate: Callable[[], float | None]
    on_these_cores: bool = False


class ModelSource(Protocol):
    """Where the model is: `identity` tells it from others without asking it anything.

    `notes` say what a person should know of the way to it.
    """

    identity: str
    notes: tuple[str, ...]

    def open(self, waiting: Waiting) -> AbstractContextManager[Asked]: ...


def model_source(
    model: str, endpoints: Sequence[str], engine: EngineSettings, tuned: Tuned | None = None
) -> ModelSource:
    """The servers at `endpoints`, else a server of our own with that model.

    A `tuned` model is known to servers elsewhere by the adapter's name.
    """
    if endpoints:
        return _Endpoints(tuned.name if tuned else model, endpoints, engine)
    return _OwnServer(model, engine, tuned)


class _Endpoints:
    def __init__(self, model: str, endpoints: Sequence[str], engine: EngineSettings) -> None:
        from llmtagger.backends.vllm_client import VllmGenerator

        self._generator = VllmGenerator(
            endpoints,
            model=None if model == "auto" else model,
            concurrency=engine.concurrency,
            timeout=engine.timeout,
        )
        self.identity = self._generator.model
        self.notes = self._generator.notes

    @contextmanager
    def open(self, waiting: Waiting) -> Iterator[Asked]:
        for note in self.notes:
            waiting(note, 0.0)
        with _probed(self._generator) as asked:
            yield asked


class _OwnServer:
    notes: tuple[str, ...] = ()

    def __init__(self, model: str, engine: EngineSettings, tuned: Tuned | None) -> None:
        from llmtagger.backends.models import resolve_model

        self._engine, self._tuned = engine, tuned
        self._model = resolve_model(model)
        self.identity = f"{self._model.name}@{self._model.fingerprint}"
        if tuned is not None:
            self.identity += f"+{tuned.name}@{tuned.weights[:16]}"

    @contextmanager
    def open(self, waiting: Waiting) -> Iterator[Asked]:
        from llmtagger.backends.hardware import has_cuda
        from llmtagger.backends.vllm_client import VllmGenerator
        from llmtagger.backends.vllm_process import START_TIMEOUT, serving
        from llmtagger.backends.vllm_state import supervisor_of

        model = self._model
        if self._tuned is not None:
            from llmtagger.backends.tuned_model import with_adapter

            waiting("merging the adapter", 0.0)
            model = with_adapter(model, self._tuned.name, self._tuned.folder, self._tuned.weights)
        with serving(model, progress=waiting) as server:
            generator = VllmGenerator(
                [server.url],
                model=server.model,
                concurrency=self._engine.concurrency,
                timeout=self._engine.timeout,
                patience=START_TIMEOUT,  # where it dies, it is started again
                gone=lambda: supervisor_of(server) is None,
            )
            with _probed(generator, on_these_cores=not has_cuda()) as asked:
                yield asked


@contextmanager
def _probed(generator: VllmGenerator, *, on_these_cores: bool = False) -> Iterator[Asked]:
    """A generator that has proved that its server honours grammars."""
    try:
        generator.probe()
        before = generator.metrics()

        def hit_rate() -> float | None:
            return generator.metrics().hit_rate(since=before)

        yield Asked(generator, hit_rate, on_these_cores)
    finally:
        generator.close()
