"""Training examples out of an index: the prompts of `tag`, with the answers that would be right.

labelled products ─ split by group ─ retrieve without siblings ─ perturb ─ render ─▶ Example
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llmtagger.config import Settings
from llmtagger.datatypes import Candidate, Product, Shortlist, TagKind
from llmtagger.errors import CatalogError, ConfigError
from llmtagger.evaluation import splitting
from llmtagger.evaluation.learning import Labelled
from llmtagger.injection import guard_product, guard_shortlist
from llmtagger.normalise import FoldedText, loosen
from llmtagger.pipeline import catalogue_retriever, prompt_renderer
from llmtagger.protocols import Retriever
from llmtagger.stages.parsing import LONGEST_TAG, MOST_VALUES
from llmtagger.stages.prompting import grouped
from llmtagger.stages.scoring import WeightedScorer
from llmtagger.templates import TemplateFile
from llmtagger.vocabulary import Vocabulary, split_key
from llmtagger.wording import neutralise, offered_labels

if TYPE_CHECKING:
    from llmtagger.backends.index_folder import CatalogueIndex

LEAST = 40  # labelled products; fewer leave nothing to hold out
_HELD_OUT = 0.2  # of the labelled products
_MOST_HELD_OUT = 200  # products; the model is asked about each when the adapter is judged
_DROPPED = 0.15  # of the right candidates: the model must live with what is not on offer
_ADDED = 2  # wrong tags, at the most, that no retrieval would have brought up
_EMPTY = 0.1  # of the examples: where a third had no tag, a model learnt only to refuse
_BATCH = 64  # products retrieved at once


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt, by roles, and the answer to be learnt; `product` and `lang` say what about."""

    product: str
    lang: str
    messages: tuple[tuple[str, str], ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Examples:
    """What is trained on, what the training is watched by, and the products held out, by id.

    `replayed` of the first are about products that the parent adapter has learnt before.
    """

    train: tuple[Example, ...]
    watch: tuple[Example, ...]
    held_out: tuple[str, ...]
    replayed: int
    kind: TagKind

    def counts(self) -> dict[str, int]:
        """Numbers for the data card: examples, tags in answers, empty answers, by language."""
        answers = [json.loads(example.answer) for example in self.train]
        langs = Counter(example.lang or "unknown" for example in self.train)
        return {
            "train": len(self.train),
            **({"replayed": self.replayed} if self.replayed else {}),
            "held out": len(self.held_out),
            "tags": sum(map(_size, answers)),
            "empty answers": sum(not answer for answer in answers),
            **{f"language {lang}": count for lang, count in sorted(langs.items())},
        }


@dataclass(frozen=True, slots=True)
class Known:
    """What an adapter that is gone on from has learnt, and what it was judged by: product ids."""

    learnt: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()


def make_examples(
    index: CatalogueIndex,
    template: TemplateFile,
    settings: Settings,
    *,
    limit: int | None = None,
    known: Known = Known(),
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Examples:
    """Examples of `limit` labelled products at the most, and the products held out for judging.

    Each product is asked about without its siblings among its neighbours, as new ones are. With
    `known`, the examples are about products that are new since, and about as many known ones; what
    was held out stays so. Raises `CatalogError` where too few are labelled.
    """
    labelled = Labelled.of(index, settings, progress)
    if len(labelled.products) < LEAST:
        raise CatalogError(
            f"{len(labelled.products)} labelled products are too few to tune on",
            hint=f"label at least {LEAST} products of the index",
        )
    train, replay, held_out = _parts(labelled, known, seed)
    random = np.random.default_rng(seed)
    fresh = [labelled.products[at] for at in random.permutation(np.array(train, int)).tolist()]
    fresh = fresh[:limit]
    again = [labelled.products[at] for at in random.permutation(np.array(replay, int)).tolist()]
    wanted = fresh + again[: len(fresh)]
    if not wanted:
        raise CatalogError(
            "no product is new since that adapter was tuned",
            hint="add labelled products first: llmtagger index add",
        )
    retriever = catalogue_retriever(
        index, settings, leave_out_siblings=True, experts=labelled.experts
    )
    maker = _Maker(index, template, settings, retriever)
    examples = []
    for example in maker.examples(wanted, random):
        examples.append(example)
        progress("writing prompts", len(examples), len(wanted))
    examples = mostly_answered(examples)
    held = [labelled.products[at] for at in held_out]
    replayed = {product.id for product in again}
    return Examples(
        tuple(examples),
        tuple(maker.examples(held, None)),
        tuple(product.id for product in held),
        sum(example.product in replayed for example in examples),
        template.kind,
    )


def mostly_answered(examples: Sequence[Example]) -> list[Example]:
    """The examples with a tag to learn, and of the others, the first ones of a share."""
    is_empty = [not json.loads(example.answer) for example in examples]
    room = int(is_empty.count(False) * _EMPTY / (1 - _EMPTY))
    found = []
    for example, empty in zip(examples, is_empty, strict=True):
        if not empty or room:
            found.append(example)
            room -= empty
    return found


def _parts(labelled: Labelled, known: Known, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Positions of products that are new to the model, of those it knows, of those held out.

    Siblings are on one side: what is like a product held out is neither learnt nor replayed, and
    what is like a known one is not held out. Where something is held out already, new products
    that are too few or too much alike are all learnt.
    """
    ids = [product.id for product in labelled.products]
    groups = labelled.groups
    judged = {groups[at] for at, id in enumerate(ids) if id in known.held_out}
    learnt = {groups[at] for at, id in enumerate(ids) if id in known.learnt}
    rest = [at for at, group in enumerate(groups) if group not in judged]
    fresh = [at for at in rest if ids[at] not in known.learnt]
    unlike = [at for at in fresh if groups[at] not in learnt]
    held_groups = judged | _groups_to_hold_out([groups[at] for at in unlike], seed, bool(judged))
    train = [at for at in fresh if groups[at] not in held_groups]
    replay = [at for at in rest if ids[at] in known.learnt]
    held_out = [
        at
        for at, group in enumerate(groups)
        if ids[at] in known.held_out or group in held_groups - judged
    ]
    return train, replay, held_out


def _groups_to_hold_out(groups: Sequence[int], seed: int, enough: bool) -> set[int]:
    """Groups of a share of the products; none where that cannot be and `enough` are held out."""
    test = min(int(len(groups) * _HELD_OUT), _MOST_HELD_OUT)
    try:
        parts = splitting.split(groups, test=test, seed=seed)
    except ConfigError:
        if enough:
            return set()
        raise
    return {groups[at] for at in parts.test}


class _Maker:
    def __init__(
        self,
        index: CatalogueIndex,
        template: TemplateFile,
        settings: Settings,
        retriever: Retriever,
    ) -> None:
        self._vocabulary = index.vocabulary
        self._kind = template.kind
        self._most = settings.answer.max_tags
        self._retriever = retriever
        self._renderer = prompt_renderer(index, template, settings, WeightedScorer())

    def examples(
        self, products: Sequence[Product], random: np.random.Generator | None
    ) -> Iterator[Example]:
        """With `random`, the candidates are perturbed; without, they are as `tag` offers them."""
        for start in range(0, len(products), _BATCH):
            batch = [guard_product(each)[0] for each in products[start : start + _BATCH]]
            for product, found in zip(batch, self._retriever.retrieve(batch), strict=True):
                shortlist = guard_shortlist(found)
                if random is not None and self._kind is not TagKind.SPAN:
                    shortlist = perturbed(product, shortlist, self._vocabulary, random)
                prompt = self._renderer.render(product, shortlist)
                answer = right_answer(self._kind, product, shortlist, self._vocabulary, self._most)
                yield Example(product.id, product.lang, prompt.messages, answer)


def perturbed(
    product: Product, shortlist: Shortlist, vocabulary: Vocabulary, random: np.random.Generator
) -> Shortlist:
    """The offer in another order, without some of the right tags, with some wrong ones added."""
    right = carried(product, vocabulary)
    offer = [c for c in shortlist.offer if c.tag.id not in right or random.random() >= _DROPPED]
    known = right | {candidate.tag.id for candidate in offer}
    for at in random.integers(0, len(vocabulary), random.integers(0, _ADDED + 1)).tolist():
        tag = vocabulary.tags[at]
        if tag.id not in known and not tag.retired:
            known.add(tag.id)
            offer.append(Candidate(tag))
    order = random.permutation(len(offer)).tolist()
    return replace(
        shortlist, candidates=tuple(offer[at] for at in order), offered=max(1, len(offer))
    )


def carried(product: Product, vocabulary: Vocabulary) -> set[str]:
    """The ids of the known tags that a product carries."""
    tags = (vocabulary.resolve(name) for name in product.tags or ())
    return {tag.id for tag in tags if tag is not None}


def right_answer(
    kind: TagKind, product: Product, shortlist: Shortlist, vocabulary: Vocabulary, most: int
) -> str:
    """The answer, as JSON, that earns every tag which can be had from this prompt.

    Closed: what was offered and is right, in the order offered. Span: values that stand in the
    text, in its order. Free: the product's tags as the catalogue writes them.
    """
    if kind is TagKind.CLOSED:
        right = carried(product, vocabulary)
        labels = offered_labels(product, shortlist)
        return _json([label for label, tag in labels.items() if tag.id in right][:most])
    if kind is TagKind.FREE:
        names = dict.fromkeys(neutralise(name) for name in product.tags or ())
        return _json([name for name in names if _admitted(name)][:most])
    values = grouped(_in_text_order(product), shortlist.keys)
    admitted = {key: [v for v in each if _admitted(v)] for key, each in values.items()}
    return _json({key: each[:MOST_VALUES] for key, each in admitted.items() if each})


def _admitted(text: str) -> bool:
    """Whether the grammar lets the model say it: xgrammar has no escapes in bounded strings."""
    return 0 < len(text) <= LONGEST_TAG and not {'"', "\\"} & set(text)


def _in_text_order(product: Product) -> list[str]:
    """The `key=value` tags whose values stand in the text, by where they first do."""
    texts = [FoldedText(text) for _, text in product.fields()]
    places: dict[str, tuple[int, int]] = {}
    for name in product.tags or ():
        needle = loosen(split_key(name)[1])
        for number, text in enumerate(texts):
            if (found := text.find(needle)) is not None:
                places[name] = (number, found[0])
                break
    return sorted(places, key=lambda name: places[name])


def _size(answer: list[str] | dict[str, list[str]]) -> int:
    return sum(map(len, answer.values())) if isinstance(answer, dict) else len(answer)


def _json(answer: object) -> str:
    """As the server's grammar writes it: without a space."""
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
