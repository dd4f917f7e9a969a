"""Prompt versions tried on the same products: one cell for each product and version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from llmtagger.calibration import Calibration
from llmtagger.config import Settings
from llmtagger.datatypes import Opinion, Problem, Product, Reason, Rejection, TaggedProduct
from llmtagger.errors import ConfigError
from llmtagger.evaluation import comparison, splitting
from llmtagger.evaluation.judging import Judge
from llmtagger.evaluation.learning import Labelled
from llmtagger.evaluation.metrics import Record
from llmtagger.injection import guard_product
from llmtagger.output import Cut, explain
from llmtagger.pipeline import Filling, build_tagger, limited_filling, threshold_without_labels
from llmtagger.protocols import Experts, Generator, Vectors
from llmtagger.redaction import redact
from llmtagger.scorers import cut_of, learned_scorer
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile
from llmtagger.wording import neutralise

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

Outcome = Literal["right", "wrong", "missed", "unjudged"]


@dataclass(frozen=True, slots=True)
class Shown:
    """One tag of a cell: what is kept of it, and whether gold has it.

    `kept` says that the system keeps it, `chosen` that the model said it; a missed tag may be
    neither. `why` is the evidence in one line. `name` is what tags are compared by.
    """

    name: str
    outcome: Outcome
    kept: bool = False
    chosen: bool = False
    score: float | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What one version of a prompt makes of one product.

    `index` is the fingerprint of the index that it rests on: neighbours, candidates, evidence.
    """

    product: Product
    version: str
    tags: tuple[Shown, ...]
    rejected: tuple[Rejection, ...] = ()
    problem: Problem | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    judged: bool = False
    index: str = ""

    @property
    def failed(self) -> bool:
        """Whether there is no trustworthy answer."""
        return self.problem is not None and not self.problem.is_remark

    @property
    def kept(self) -> frozenset[str]:
        """The tags that the system keeps."""
        return frozenset(tag.name for tag in self.tags if tag.kept)

    @property
    def said(self) -> frozenset[str]:
        """The tags that the model chose."""
        return frozenset(tag.name for tag in self.tags if tag.chosen)

    @property
    def gold(self) -> frozenset[str]:
        """The tags that are right, as far as is known."""
        return frozenset(tag.name for tag in self.tags if tag.outcome in ("right", "missed"))


@dataclass(frozen=True)
class Bench:
    """An index that prompts are tried on.

    A product is asked about as if it were new: it is never its own example, nor is a sibling, and
    what the index learnt from it and them is left out, where its text is still the index's. The
    model's answers weigh the same whatever the prompt: what was fitted to one prompt's answers
    would favour that prompt.
    """

    index: CatalogueIndex
    settings: Settings
    calibration: Calibration | None = None
    filling: Filling = limited_filling

    def cells(
        self, template: TemplateFile, products: Sequence[Product], generator: Generator | None
    ) -> Iterator[Cell]:
        """One cell a product, each as soon as its answer is there, not in order."""
        fitted = self.calibration and self.calibration.model_copy(
            update={"asked": None, "ask": None}
        )
        tagger = build_tagger(
            self.index,
            template,
            self.settings,
            generator,
            leave_out_siblings=True,
            experts=self.experts,
            scorer=learned_scorer(fitted) if fitted else WeightedScorer(),
            filling=self.filling,
        )
        cut = cut_of(self.settings.scoring, fitted, cold=self._cold_threshold)
        judge = Judge(self.index.vocabulary)
        for tagged in tagger.tag(products):
            cell = cell_of(tagged, template.name, cut, judge, tagged.product.tags)
            yield replace(cell, index=self.index.fingerprint)

    @cached_property
    def _cold_threshold(self) -> float | None:
        return None if self.calibration else threshold_without_labels(self.index, self.settings)

    @property
    def experts(self) -> Experts:
        """What is known of a product without what was learnt from it."""
        return _AsIfNew(self.index, lambda: self._learnt)

    @cached_property
    def _learnt(self) -> Labelled:
        return Labelled.of(self.index, self.settings, lambda stage, done, total: None)


@dataclass(frozen=True)
class _AsIfNew:
    """The index's experts; of a product that they learnt from, their opinion without its group.

    The latter take a while to compute, and are `learnt` when there is such a product.
    """

    index: CatalogueIndex
    learnt: Callable[[], Labelled]

    def compared(self, product: Product) -> Product:
        return self.index.experts.compared(product)

    def judge(self, products: Sequence[Product], vectors: Vectors) -> list[Opinion]:
        found = list(self.index.experts.judge(products, vectors))
        known = [at for at, product in enumerate(products) if self._is_labelled(product)]
        if known:
            learnt = self.learnt()
            ids = {product.id for product in learnt.products}
            for at in known:
                if products[at].id in ids:
                    found[at] = learnt.experts.judge([products[at]], vectors[at : at + 1])[0]
        return found

    def _is_labelled(self, product: Product) -> bool:
        row = self.index.position(product.id)
        if row is None or not self.index.labelled[row]:
            return False
        ours = guard_product(self.index.product(row))[0].text()
        return product.text() in (ours, redact(ours))


def cell_of(
    tagged: TaggedProduct, version: str, cut: Cut, judge: Judge, gold: Sequence[str] | None
) -> Cell:
    """A result beside the gold of its product; `gold` is None where nobody has judged it."""
    found = dict[str, Shown]()
    places = {item.tag.id for item in cut.place(tagged, as_new=True).kept}
    right = {judge.written(tag) for tag in gold or ()}
    for item in tagged.scored.items:
        kept = item.tag.id in places
        name = judge.written(item.tag.name)
        if (kept or item.evidence.chosen or name in right) and name not in found:
            why = explain(item.evidence)
            found[name] = Shown(name, "unjudged", kept, item.evidence.chosen, item.score, why)
    answer = tagged.completion
    cell = Cell(
        product=tagged.product,
        version=version,
        tags=tuple(found.values()),
        rejected=tuple(Rejection(neutralise(r.text), r.reason) for r in tagged.rejected),
        problem=tagged.problem,
        prompt_tokens=answer.prompt_tokens if answer else 0,
        completion_tokens=answer.completion_tokens if answer else 0,
        seconds=answer.seconds if answer else 0.0,
    )
    return judged(cell, judge, gold)


def judged(cell: Cell, judge: Judge, gold: Sequence[str] | None) -> Cell:
    """The same cell beside other gold, as it is after somebody has marked a tag."""
    right = {judge.written(tag) for tag in gold or ()}

    def outcome(tag: Shown) -> Outcome:
        if gold is None:
            return "unjudged"
        if tag.name in right:
            return "right" if tag.kept else "missed"
        return "wrong"

    held = [replace(tag, name=judge.written(tag.name)) for tag in cell.tags]
    said = [replace(tag, outcome=outcome(tag)) for tag in held if tag.kept or tag.chosen]
    names = {tag.name for tag in said}
    low = {tag.name: tag for tag in held if tag.name not in names}
    missed = [
        replace(low.get(name, Shown(name, "missed")), outcome="missed")
        for name in dict.fromkeys(map(judge.written, gold or ()))
        if name not in names
    ]
    return replace(cell, tags=(*said, *missed), judged=gold is not None)


def cell_record(cell: Cell) -> Record:
    """A cell as JSON: of its tags, what they are and how sure."""
    return {
        "product": cell.product.id,
        "version": cell.version,
        "index": cell.index,
        "tags": [
            {
                "tag": tag.name,
                "outcome": tag.outcome,
                "kept": tag.kept,
                "chosen": tag.chosen,
                "score": None if tag.score is None else round(tag.score, 4),
                "why": tag.why,
            }
            for tag in cell.tags
        ],
        "rejected": [{"text": r.text, "reason": r.reason.value} for r in cell.rejected],
        "problem": {"code": cell.problem.code, "message": cell.problem.message}
        if cell.problem
        else None,
        "prompt_tokens": cell.prompt_tokens,
        "completion_tokens": cell.completion_tokens,
        "seconds": round(cell.seconds, 3),
    }


def cell_of_record(record: Record, product: Product) -> Cell:
    """The cell that `cell_record` took down."""
    return Cell(
        product=product,
        version=record["version"],
        tags=tuple(
            Shown(t["tag"], t["outcome"], t["kept"], t["chosen"], t["score"], t["why"])
            for t in record["tags"]
        ),
        rejected=tuple(Rejection(r["text"], Reason(r["reason"])) for r in record["rejected"]),
        problem=Problem(**record["problem"]) if record["problem"] else None,
        prompt_tokens=record["prompt_tokens"],
        completion_tokens=record["completion_tokens"],
        seconds=record["seconds"],
        index=record["index"],
    )


def compare(a: Sequence[Cell], b: Sequence[Cell], *, seed: int = 0) -> Record:
    """Whether version `b` is better than `a` on the judged products that both were tried on.

    `system` compares what is kept, `model` what the model alone said; products that look alike are
    drawn together. `cost` holds tokens and seconds of an answer, on average. `answers` counts the
    answers of both, and those in which the model chose no tag. Only answers that rest on the same
    index are compared. `ConfigError` where there are none.
    """
    other = {(cell.product.id, cell.index): cell for cell in b if cell.judged}
    pairs = [
        (cell, other[cell.product.id, cell.index])
        for cell in a
        if cell.judged and (cell.product.id, cell.index) in other
    ]
    if not pairs:
        raise ConfigError(
            "no labelled product was tried with both versions",
            hint="try both on products whose tags are known, or mark tags in the studio",
        )
    groups = splitting.groups([one.product for one, _ in pairs], None)

    def records(items: Literal["kept", "said"]) -> list[tuple[Record, Record]]:
        return [
            (_record(one, getattr(one, items), group), _record(two, getattr(two, items), group))
            for (one, two), group in zip(pairs, groups, strict=True)
        ]

    return {
        "a": pairs[0][0].version,
        "b": pairs[0][1].version,
        "system": comparison.paired(records("kept"), seed=seed),
        "model": comparison.paired(records("said"), seed=seed),
        "answers": 2 * len(pairs),
        "silent": sum(not (cell.said or cell.failed) for pair in pairs for cell in pair),
        "cost": {
            "a": _cost([one for one, _ in pairs]),
            "b": _cost([two for _, two in pairs]),
        },
    }


def _record(cell: Cell, kept: frozenset[str], group: int) -> Record:
    return {
        "id": cell.product.id,
        "title": cell.product.title,
        "group": group,
        "gold": sorted(cell.gold),
        "kept": {"system": sorted(kept)},
    }


def _cost(cells: Sequence[Cell]) -> Record:
    asked = [cell for cell in cells if cell.prompt_tokens]
    return {
        name: sum(getattr(cell, name) for cell in asked) / max(len(asked), 1)
        for name in ("prompt_tokens", "completion_tokens", "seconds")
    }
