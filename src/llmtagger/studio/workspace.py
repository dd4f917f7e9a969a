"""Everything that the studio's pages work on, without a page: index, versions, cells, gold."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llmtagger.approval import approve
from llmtagger.calibration import read_calibration
from llmtagger.config import Settings, load_settings
from llmtagger.datatypes import Product, Shortlist
from llmtagger.errors import EngineCancelled, EngineError
from llmtagger.evaluation.answers import KeptAnswers, kept_answers
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.trials import (
    Bench,
    Cell,
    cell_of_record,
    cell_record,
    compare,
    judged,
)
from llmtagger.goldbook import FILE, VIEWS, GoldBook
from llmtagger.injection import guard_product, guard_shortlist
from llmtagger.pipeline import catalogue_retriever, prompt_renderer
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.studio.shelf import Shelf
from llmtagger.studio.watching import Watchers
from llmtagger.templates import TemplateFile, find_template, list_templates, live_template
from llmtagger.versions import make_version, promote_version

if TYPE_CHECKING:
    from llmtagger.asking import Waiting

DRAFT = "draft"  # the version's name in `tag.draft`: a text that is no version yet
_KEPT_SHORTLISTS = 64  # products whose retrieval is remembered while their prompt is edited


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt as the model would get it. `shared` of its `tokens` open another product's as well.

    The server computes those once, as far as its blocks allow.
    """

    messages: tuple[tuple[str, str], ...]
    tokens: int
    shared: int
    truncated: tuple[str, ...]


class Workspace:
    """An index opened for work on its prompts; any thread may use it. Close it with `with`."""

    def __init__(
        self,
        index: Path,
        *,
        config: Path | None = None,
        prompts: Path = Path("prompts"),
        model: str = "auto",
        endpoints: Sequence[str] = (),
        cache: Path,
    ) -> None:
        from llmtagger.backends.snapshots import current_snapshot
        from llmtagger.backends.template_worker import TemplateWorker

        current_snapshot(index)  # before a file is made in a folder that is no index
        self.folder, self._config, self._prompts = index, config, prompts
        self.model, self.endpoints, self._cache = model, tuple(endpoints), cache
        self.settings: Settings = load_settings(config)
        self.book = GoldBook(index / FILE)
        self.shelf = Shelf(index / VIEWS)
        self._worker = TemplateWorker()
        self._answers: KeptAnswers | None = None
        self._opening = threading.Lock()
        self._starts = Watchers()
        self._open_index()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop_engine()
        self._worker.__exit__()
        self.book.close()
        self.shelf.close()

    def _open_index(self) -> None:
        from llmtagger.backends.index_folder import open_index
        from llmtagger.evaluation.remembering import known_index

        self.index = known_index(open_index(self.folder))
        self.judge = Judge(self.index.vocabulary)
        self._calibration = read_calibration(self.folder)
        self._shortlists: dict[str, Shortlist] = {}
        self._bench = Bench(
            self.index, self.settings, self._calibration, filling=self._worker.filling
        )
        self._retriever = catalogue_retriever(
            self.index, self.settings, leave_out_siblings=True, experts=self._bench.experts
        )
        labelled = map(self.index.product, self.index.labelled.nonzero()[0].tolist())
        # Any first part is a fair sample, and a product that is added moves no other one.
        self.products = tuple(sorted(labelled, key=lambda each: _lot(each.id)))

    # --- products

    def gold(self, product: Product) -> tuple[str, ...] | None:
        """The tags that are right: the catalogue's, corrected by people; None if nobody said."""
        if product.tags is None and not self.book.marks(product.id):
            return None
        return self.book.gold(product, self.index.vocabulary)

    def approve(self, ids: Sequence[str], author: str) -> list[str]:
        """Make products with their gold labels of the index, and work on with that.

        Returns the ids of those that were changed meanwhile, and are still open.
        """
        chosen = [entry for id in ids if (entry := self.book.entry(id)) is not None]
        if not chosen:
            return []
        left = approve(self.folder, chosen, self.book, author, lambda stage, done, total: None)
        self._open_index()
        return left

    def label(self, name: str, lang: str) -> str:
        """A tag as a shopper of that language reads it; the text itself where it is unknown."""
        tag = self.index.vocabulary.resolve(name)
        return tag.label(lang[:2].lower()) if tag else name

    # --- versions

    def versions(self) -> list[TemplateFile]:
        """All versions for the index's kind of tags, the oldest first."""
        found = [find_template(name) for name in list_templates()]
        return [template for template in found if template.kind is self.index.vocabulary.kind]

    @property
    def live(self) -> str:
        """The version in use."""
        return live_template(self.index.vocabulary.kind, load_settings(self._config).live)

    def draft(self, parent: TemplateFile, text: str) -> TemplateFile:
        """A text that is being edited, as a template that can be rendered and tried."""
        return TemplateFile(f"{parent.task}.{DRAFT}", text)

    def save(self, parent: TemplateFile, text: str, **said: Any) -> TemplateFile:
        """The next version, as `versions.make_version` writes it."""
        return make_version(
            parent, text, folder=self._prompts, filling=self._worker.filling, **said
        )

    def promote(self, name: str, *, note: str, author: str) -> None:
        """Make a version live in the settings, and keep why."""
        path = self._config or Path("llmtagger.toml")
        promote_version(name, path, note=note, author=author, folder=self._prompts)

    # --- rendering

    def render(self, template: TemplateFile, product: Product, other: Product) -> Rendered:
        """The prompt for a product, and how much of it opens that of another product as well."""
        renderer = prompt_renderer(
            self.index, template, self.settings, WeightedScorer(), self._worker.filling
        )
        both = (guard_product(each)[0] for each in (product, other))
        prompt, beside = (renderer.render(each, self._shortlist(each)) for each in both)
        text, next_text = (
            "\n".join(said for _, said in each.messages) for each in (prompt, beside)
        )
        same = next(
            (at for at, (a, b) in enumerate(zip(text, next_text, strict=False)) if a != b),
            min(len(text), len(next_text)),
        )
        return Rendered(
            prompt.messages, self.count(text), self.count(text[:same]), prompt.truncated
        )

    def _shortlist(self, product: Product) -> Shortlist:
        kept = self._shortlists  # another thread may reopen the index meanwhile
        found = kept.get(product.id)
        if found is None:
            found = guard_shortlist(self._retriever.retrieve([product])[0])
            if len(kept) >= _KEPT_SHORTLISTS:
                kept.pop(next(iter(kept)), None)
            kept[product.id] = found
        return found

    @cached_property
    def count(self) -> Any:
        """Counts the tokens of a text, by the model's tokenizer if it is here."""
        from llmtagger.backends.models import count_tokens, resolve_model
        from llmtagger.wording import estimate_tokens

        return (not self.endpoints and count_tokens(resolve_model(self.model))) or estimate_tokens

    # --- cells

    def known(self, template: TemplateFile, products: Sequence[Product]) -> dict[str, Cell]:
        """The cells that were computed before, by product id, judged by the gold of now."""
        held = self.shelf.cells(self._basis(template), (product.id for product in products))
        return {
            product.id: self.judged(
                # the same text may have been asked with under another name, as a draft
                replace(cell_of_record(held[product.id], product), version=template.name)
            )
            for product in products
            if product.id in held
        }

    def judged(self, cell: Cell) -> Cell:
        """A cell beside the gold of now."""
        return judged(cell, self.judge, self.gold(cell.product))

    def is_stale(self, cell: Cell) -> bool:
        """Whether the index has changed since: another answer may come if it is asked again."""
        return cell.index != self.index.fingerprint

    def ask(
        self, template: TemplateFile, products: Sequence[Product], waiting: Waiting
    ) -> Iterator[Cell]:
        """A cell a product as its answer comes in; closing the iterator stops asking.

        What is known already may be asked again, for instance after the index has changed.

        The server starts when the first answer is missing. `EngineError` where it cannot; it is
        started again the next time.
        """
        with self._starts.watched_by(waiting):
            yield from self._asked(template, products)

    def _asked(self, template: TemplateFile, products: Sequence[Product]) -> Iterator[Cell]:
        basis, answers = self._basis(template), self._open()
        try:
            # The first alone: beside the others it would be on the screen about when they are.
            for part in (products[:1], products[1:]):
                for cell in self._bench.cells(template, part, answers):
                    if not cell.failed:
                        self.shelf.keep_cell(basis, cell.product.id, cell_record(cell))
                    yield self.judged(cell)
        except EngineCancelled:
            raise  # the answers are in order, and another tab may be waiting for the same server
        except EngineError:
            self._let_go(answers)
            raise

    def compared(self, a: TemplateFile, b: TemplateFile) -> dict[str, Any]:
        """The verdict on two versions, from the products that both were tried on."""
        one, other = (list(self.known(each, self.products).values()) for each in (a, b))
        return compare(one, other)

    def stop_engine(self) -> None:
        """Stop the server, if one was started; the next question starts it again."""
        if self._answers is not None:
            self._let_go(self._answers)

    def switch_model(self, name: str) -> None:
        """Ask another model from the next question on; `ModelMissing` where it is not found.

        It is downloaded first if need be.
        """
        from llmtagger.backends.models import resolve_model

        resolve_model(name)
        self.stop_engine()
        self.model = name
        self.__dict__.pop("count", None)  # another model counts tokens otherwise

    def _let_go(self, answers: KeptAnswers) -> None:
        """Close these, unless another thread has; what was opened after them stays."""
        with self._opening:
            if self._answers is not answers:
                return
            self._answers = None
        answers.__exit__(None, None, None)

    def _open(self) -> KeptAnswers:
        with self._opening:
            if self._answers is None:
                self._answers = kept_answers(
                    *(self.model, self.endpoints, self.settings.engine, self._cache),
                    self._starts,
                )
            return self._answers

    def _basis(self, template: TemplateFile) -> str:
        fitted = self._calibration.fingerprint if self._calibration else "default"
        # Of the settings, the fingerprint has what changes an answer; a cell is a cut of it, too.
        # The index is noted in each cell: an approved product must not take all answers away.
        scoring = self.settings.scoring.model_dump_json()
        parts = (
            *(template.hash, self.settings.fingerprint, scoring, fitted),
            *(self.model, *self.endpoints),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _lot(id: str) -> bytes:
    """A product's place in an order drawn by lot, which is its own for ever."""
    return hashlib.sha256(id.encode(errors="surrogatepass")).digest()
