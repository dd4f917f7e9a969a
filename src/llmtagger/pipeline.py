"""The stages in order: `Tagger` runs them; `open_tagger` picks the real parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import compress, islice
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from llmtagger.catalog.text import loss
from llmtagger.config import Settings
from llmtagger.datatypes import (
    Completion,
    ParsedTags,
    Problem,
    Product,
    Prompt,
    ScoredTags,
    Shortlist,
    TaggedProduct,
)
from llmtagger.errors import RequestFailed, RequestRefused
from llmtagger.injection import guard_product, guard_shortlist
from llmtagger.protocols import AnswerFormat, Experts, Generator, Retriever, Scorer
from llmtagger.redaction import Redacting
from llmtagger.sandbox import Fill
from llmtagger.stages.cold_start import cold_threshold
from llmtagger.stages.exemplars import Exemplars
from llmtagger.stages.parsing import answer_format
from llmtagger.stages.prompting import PromptRenderer
from llmtagger.stages.retrieval import Catalogue, CatalogueRetriever
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile

BATCH = 16  # products retrieved at once: few enough that the first prompts leave early
_SAMPLE = 200  # products that tell where to cut a catalogue without labels

WorthAsking = Callable[[ScoredTags], bool]
Filling = Callable[[TemplateFile], Fill]
_Numbered = tuple[int, TaggedProduct]


class _Retrieved(NamedTuple):
    """A product as it was given and as it is read, what was found for it, and a remark."""

    given: Product
    read: Product
    shortlist: Shortlist
    remark: Problem | None


def _every(product: Product) -> bool:
    """Every product is wanted."""
    return True


class Tagger:
    """Tags products: retrieve, render, generate, parse, score.

    Without a generator no model is asked, and the scores rest on the catalogue alone. From the
    scores without the model, `worth_asking` decides whether it is asked about a product.

    What speaks to the model in a product, its neighbours or the tags' names is left out before any
    stage reads it, and remarked on; only what measures this should ask for less (`guarded`).
    """

    def __init__(
        self,
        retriever: Retriever,
        renderer: PromptRenderer,
        answers: AnswerFormat,
        scorer: Scorer,
        generator: Generator | None,
        worth_asking: WorthAsking | None = None,
        *,
        guarded: bool = True,
    ) -> None:
        self._guarded = guarded
        self._worth_asking = worth_asking
        self._retriever = retriever
        self._renderer = renderer
        self._answers = answers
        self._scorer = scorer
        self._generator = generator

    def prepare(self, products: Iterable[Product]) -> Iterator[tuple[Product, Shortlist, Prompt]]:
        """Each product with its shortlist and prompt, in order; asks no model."""
        for product, read, shortlist, _ in self._retrieve(products):
            yield product, shortlist, self._renderer.render(read, shortlist)

    def tag(
        self, products: Iterable[Product], wanted: Callable[[Product], bool] = _every
    ) -> Iterator[TaggedProduct]:
        """Results of the wanted products as they finish, not in order.

        Retrieval goes on while the server works. The last digits of a similarity depend on what
        else is retrieved at once: products that are not wanted again are therefore retrieved with
        those that are, so that a run that goes on finds what it would have found at once.
        """
        for _, tagged in self._run(products, wanted):
            yield tagged

    def tag_ordered(self, products: Iterable[Product]) -> Iterator[TaggedProduct]:
        """The same, in the order of the products, each as soon as those before it are there."""
        waiting: dict[int, TaggedProduct] = {}
        due = 0
        for number, tagged in self._run(products):
            waiting[number] = tagged
            while due in waiting:
                yield waiting.pop(due)
                due += 1

    def tag_all(self, products: Iterable[Product]) -> list[TaggedProduct]:
        """One result a product, in the order of the products."""
        return list(self.tag_ordered(products))

    def _run(
        self, products: Iterable[Product], wanted: Callable[[Product], bool] = _every
    ) -> Iterator[_Numbered]:
        workers = self._generator.concurrency if self._generator else 1
        pool = ThreadPoolExecutor(workers, thread_name_prefix="llmtagger")
        running = 0
        ended: SimpleQueue[Future[_Numbered]] = SimpleQueue()
        try:
            for number, retrieved in enumerate(self._retrieve(products, wanted)):
                pool.submit(self._tag, number, retrieved).add_done_callback(ended.put)
                running += 1
                if running >= workers + BATCH:
                    done = _ended(ended)
                    running -= len(done)
                    yield from _results(done)
            while running:
                done = _ended(ended)
                running -= len(done)
                yield from _results(done)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _retrieve(
        self, products: Iterable[Product], wanted: Callable[[Product], bool] = _every
    ) -> Iterator[_Retrieved]:
        remaining = iter(products)
        while batch := list(islice(remaining, BATCH)):
            keep = [wanted(product) for product in batch]
            if any(keep):
                yield from compress(self._read(batch), keep)

    def _read(self, batch: Sequence[Product]) -> Iterator[_Retrieved]:
        read = [guard_product(each) if self._guarded else (each, None) for each in batch]
        found = self._retriever.retrieve([product for product, _ in read])
        for given, (product, remark), shortlist in zip(batch, read, found, strict=True):
            shown = guard_shortlist(shortlist) if self._guarded else shortlist
            yield _Retrieved(given, product, shown, remark or loss(given))

    def _tag(self, number: int, retrieved: _Retrieved) -> _Numbered:
        given, product, shortlist, remark = retrieved
        prompt = self._renderer.render(product, shortlist)
        parsed, completion = ParsedTags(), None
        if self._worth_asking is None or self._worth_asking(
            self._scorer.score(product, shortlist, parsed)
        ):
            parsed, completion = self._ask(prompt, product, shortlist)
        return number, TaggedProduct(
            product=given,
            scored=self._scorer.score(product, shortlist, parsed),
            rejected=parsed.rejected,
            problem=parsed.problem or remark,
            truncated=prompt.truncated,
            completion=completion,
            answered=parsed.answered,
            offered=tuple(candidate.tag.name for candidate in shortlist.offer),
            prompt_hash=prompt.hash,
        )

    def _ask(
        self, prompt: Prompt, product: Product, shortlist: Shortlist
    ) -> tuple[ParsedTags, Completion | None]:
        constraint = self._answers.constraint(product, shortlist)
        if self._generator is None or constraint is None:
            return ParsedTags(), None
        try:
            completion = self._generator.complete(prompt, constraint)
        except RequestRefused as error:
            return ParsedTags(problem=Problem("request_refused", error.message)), None
        except RequestFailed as error:
            return ParsedTags(problem=Problem("request_failed", error.message)), None
        return self._answers.parse(completion, product, shortlist), completion


def _ended(ended: SimpleQueue[Future[_Numbered]]) -> list[Future[_Numbered]]:
    """One that has ended, waited for, and what else has."""
    return [ended.get(), *(ended.get() for _ in range(ended.qsize()))]


def _results(done: Iterable[Future[_Numbered]]) -> Iterator[_Numbered]:
    """What is finished; errors are raised last, so that no answer is lost to one."""
    for future in sorted(done, key=lambda future: future.exception() is not None):
        yield future.result()


def limited_filling(template: TemplateFile) -> Fill:
    """How to fill a template in a process of its own, with limits: it may be anybody's code."""
    from llmtagger.backends.template_worker import shared_worker

    return shared_worker().filling(template)


def build_tagger(
    catalogue: Catalogue,
    template: TemplateFile,
    settings: Settings,
    generator: Generator | None,
    *,
    leave_out_siblings: bool = False,
    experts: Experts | None = None,
    scorer: Scorer | None = None,
    worth_asking: WorthAsking | None = None,
    filling: Filling = limited_filling,
    guarded: bool = True,
) -> Tagger:
    """A tagger on an opened index: the prompt's task decides the form of the answer."""
    scorer = scorer or WeightedScorer()
    return Tagger(
        retriever=catalogue_retriever(
            catalogue, settings, leave_out_siblings=leave_out_siblings, experts=experts
        ),
        renderer=prompt_renderer(catalogue, template, settings, scorer, filling),
        answers=answer_format(template.kind, catalogue.vocabulary, settings.answer),
        scorer=scorer,
        generator=generator,
        worth_asking=worth_asking,
        guarded=guarded,
    )


def catalogue_retriever(
    catalogue: Catalogue,
    settings: Settings,
    *,
    leave_out_siblings: bool = False,
    experts: Experts | None = None,
) -> Retriever:
    """A retriever on an opened index; personal data is kept from it where the settings say so."""
    retriever = CatalogueRetriever(
        catalogue, settings.retrieval, leave_out_siblings=leave_out_siblings, experts=experts
    )
    return Redacting(retriever) if settings.prompt.redact else retriever


def threshold_without_labels(catalogue: Catalogue, settings: Settings) -> float | None:
    """The threshold that suits a catalogue without labels, by some of its products; else None."""
    if catalogue.labelled.any():
        return None
    rows = np.flatnonzero(catalogue.live)
    some = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE)).astype(int)]
    products = [guard_product(catalogue.product(row))[0] for row in some.tolist()]
    found = catalogue_retriever(catalogue, settings).retrieve(products)
    scorer = WeightedScorer()
    return cold_threshold(
        scorer.score(product, guard_shortlist(shortlist), ParsedTags())
        for product, shortlist in zip(products, found, strict=True)
    )


def prompt_renderer(
    catalogue: Catalogue,
    template: TemplateFile,
    settings: Settings,
    scorer: Scorer,
    filling: Filling = limited_filling,
) -> PromptRenderer:
    """A renderer whose examples come from the index, as the template's header asks for them.

    `scorer` tells which tags are in doubt, where examples are to cover those.
    """
    exemplars = Exemplars(template.header.examples, catalogue, scorer)
    max_tags = settings.answer.max_tags
    return PromptRenderer(template, settings.prompt, max_tags, exemplars, filling)
