"""Which products are worth a person's time: to label next, or to look at again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmtagger.calibration import Calibration
from llmtagger.config import Settings
from llmtagger.datatypes import Product, TaggedProduct
from llmtagger.evaluation import fitting
from llmtagger.evaluation.learning import Learnt, Progress, calibrate
from llmtagger.evaluation.metrics import Floats
from llmtagger.output import unblocked
from llmtagger.pipeline import build_tagger
from llmtagger.protocols import Vectors
from llmtagger.scorers import learned_scorer
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile
from llmtagger.vocabulary import Vocabulary

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

FEW = 100  # labelled products, below which doubts find the odd, and the usual teach more
_SHOWN = 5  # tags that a suggestion names
_OTHERS = 2  # groups that make a tag usual enough for a candidate
_SURE = 0.8  # probability from which on a missing tag is reported, and 1 - p of a carried one


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A product to label: how many wrong decisions are expected on it, and the closest calls."""

    product: Product
    doubt: float
    tags: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A label that its own catalogue speaks against, by a probability found without the product."""

    product: Product
    tag: str
    probability: float
    fault: Literal["unlikely", "missing"]


def suggest(
    index: CatalogueIndex,
    products: Sequence[Product],
    template: TemplateFile,
    settings: Settings,
    calibration: Calibration | None,
    count: int,
) -> list[Suggestion]:
    """The products whose labels would teach most, the best first; asks no model.

    Doubt is the expected number of wrong decisions at even odds. Each next product is the one of
    most doubt after a discount for its likeness to those chosen before (its cosine), so that ten
    variants of one product are not labelled ten times. With fewer than `FEW` labelled products
    they are drawn at random, which teaches more (benchmarks/README.md). Blocked tags count for
    nothing, since they are never kept.
    """
    scorer = learned_scorer(calibration) if calibration else WeightedScorer()
    tagger = build_tagger(index, template, settings, None, scorer=scorer)
    results = [_open(tagged, settings) for tagged in tagger.tag_all(products)]
    doubts = np.array([doubt_of(tagged) for tagged in results])
    if has_few(index):
        chosen = np.random.default_rng(0).permutation(len(products))[:count].tolist()
    else:
        texts = [product.text()[: settings.retrieval.text_limit] for product in products]
        chosen = most_worth(doubts, index.encoder.encode(texts), count)
    return [Suggestion(products[at], float(doubts[at]), _closest(results[at])) for at in chosen]


def _open(tagged: TaggedProduct, settings: Settings) -> TaggedProduct:
    """The result without tags that may not be used."""
    return replace(tagged, scored=unblocked(tagged.scored, settings.scoring.blocklist)[0])


def has_few(index: CatalogueIndex) -> bool:
    """Whether so little is labelled that suggestions are drawn at random."""
    return int(index.labelled.sum()) < FEW


def doubt_of(tagged: TaggedProduct) -> float:
    """How many of the decisions about a product's candidates are expected to be wrong."""
    return sum(min(item.score, 1 - item.score) for item in tagged.scored.items)


def most_worth(worth: Floats, vectors: Vectors, count: int) -> list[int]:
    """Positions by worth (n,), each discounted by its cosine to the nearest one chosen before.

    `vectors` (n, d) are unit rows.
    """
    nearest = np.zeros(len(worth))
    chosen: list[int] = []
    for _ in range(min(count, len(worth))):
        gain = worth * (1 - nearest)
        gain[chosen] = -1.0
        at = int(gain.argmax())
        chosen.append(at)
        nearest = np.maximum(nearest, np.clip(vectors @ vectors[at], 0.0, 1.0))
    return chosen


def _closest(tagged: TaggedProduct) -> tuple[tuple[str, float], ...]:
    items = sorted(tagged.scored.items, key=lambda item: abs(item.score - 0.5))[:_SHOWN]
    return tuple((item.tag.name, item.score) for item in items)


def audit(
    index: CatalogueIndex, template: TemplateFile, settings: Settings, progress: Progress
) -> list[Doubt]:
    """Labels that the rest of the catalogue contradicts, the surest first.

    Every product is scored by what was learnt without its group. A tag that it carries is
    `unlikely` where the score is low; one that it lacks is `missing` where it is high. A carried
    tag that nothing brought up, though `_OTHERS` other groups have it, is the least likely of all.
    """
    learnt = calibrate(index, template, settings, None, ask=0, progress=progress)
    table = fitting.table_of(learnt.results, learnt.judge, learnt.groups)
    names = {tag.id: tag.name for tag in index.vocabulary}
    _, log_odds = fitting.fit(table)
    found = []
    for row, probability in enumerate(fitting.chances(log_odds).tolist()):
        sure = probability if not table.right[row] else 1 - probability
        if sure >= _SURE:
            found.append(
                Doubt(
                    learnt.products[int(table.product[row])],
                    names.get(table.tags[row], table.tags[row]),
                    probability,
                    "unlikely" if table.right[row] else "missing",
                )
            )
    return sorted(found + _unexpected(learnt, table, index.vocabulary), key=_sureness)


def _unexpected(learnt: Learnt, table: fitting.Table, vocabulary: Vocabulary) -> list[Doubt]:
    """Carried tags that were not even candidates, though several other groups carry them."""
    rows = set(zip(table.product.tolist(), table.tags, strict=True))
    carried = [
        {tag.id: tag.name for name in product.tags or () if (tag := vocabulary.resolve(name))}
        for product in learnt.products
    ]
    groups: dict[str, set[int]] = {}
    for group, tags in zip(learnt.groups, carried, strict=True):
        for id in tags:
            groups.setdefault(id, set()).add(group)
    return [
        Doubt(product, name, 0.0, "unlikely")
        for at, (product, tags) in enumerate(zip(learnt.products, carried, strict=True))
        for id, name in tags.items()
        if (at, id) not in rows and len(groups[id]) > _OTHERS
    ]


def _sureness(doubt: Doubt) -> tuple[float, str, str]:
    sure = doubt.probability if doubt.fault == "missing" else 1 - doubt.probability
    return -sure, doubt.product.id, doubt.tag


def unlabelled(products: Iterable[Product], index: CatalogueIndex) -> list[Product]:
    """Those of the products that the index does not hold a label of."""
    found = []
    for product in products:
        row = index.position(product.id)
        if row is None or not index.labelled[row]:
            found.append(product)
    return found
