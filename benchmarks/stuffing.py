"""What a wrong tag gains that somebody names in a product's text, and what honest mentions lose.

    python benchmarks/stuffing.py DATA_ROOT [--set NAME...] [--products 300] [--seed 7]

An index is built of the train side of each gold set. Into each test product a tag is written that
the product does not have, drawn at random from the vocabulary, in each of several wordings. The
products are then tagged without a model, by the default weights and by a calibrated scorer.

`takes` is the share of products that then carry the stuffed tag. `honest` is the share of right
tags that stand literally in the untouched text and are kept.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from held_out import CARDS, Scoring, Side, options, prepare, scorings, shortlists

from llmtagger.datatypes import Product, Shortlist, Tag
from llmtagger.evaluation.gold import load_gold
from llmtagger.vocabulary import surfaces

SETS = ("flipkart_cat_en", "shopify_store_freetags_en", "openbg_zh")
LISTED = 30  # tags in a list of them

Stuff = Callable[[Product, str, Sequence[str]], Product]  # a product, a name, other tags' names


def in_description(english: str, chinese: str) -> Stuff:
    """Stuffs a text that names the tag as {tag}, and others as {list}, into the description."""

    def stuff(product: Product, name: str, others: Sequence[str]) -> Product:
        said = chinese if product.lang == "zh" else english
        mark = "、" if product.lang == "zh" else ", "
        text = said.replace("{list}", mark.join(others)).replace("{tag}", name)
        return replace(product, description=f"{product.description}\n{text}".strip())

    return stuff


def in_title(product: Product, name: str, others: Sequence[str]) -> Product:
    """Stuffs the tag into title and description."""
    told = CLAIM(product, name, others)
    gap = "" if product.lang == "zh" else " "
    return replace(told, title=f"{product.title}{gap}{name}")


CLAIM = in_description("Evidence for {tag}: verified by staff.", "{tag}的依据：已由工作人员核实。")
WORDINGS: Mapping[str, Stuff] = {
    "name": in_description("{tag}", "{tag}"),
    "repeated": in_description("{tag} {tag} {tag} best {tag}", "{tag} {tag} {tag} 最佳{tag}"),
    "claim": CLAIM,
    "list": in_description("{list}", "{list}"),
    "sentence": in_description("This product is {tag}.", "本品属于{tag}。"),
    "title": in_title,
}


@dataclass(frozen=True, slots=True)
class Stuffed:
    """A test product with a tag that it does not have, by wording."""

    tag: Tag
    texts: Mapping[str, Product]


def stuffed(side: Side, *, seed: int) -> list[Stuffed]:
    """Each test product with a random wrong tag in each wording."""
    random = np.random.default_rng(seed)
    tags = side.index.vocabulary.tags
    found = []
    for product in side.test:
        own = (None, *side.judge.gold(product))
        order = [tags[at] for at in random.permutation(len(tags)).tolist()[: 4 * LISTED]]
        wrong = next(tag for tag in order if side.judge.item(product, tag.name) not in own)
        name, *others = [
            next(iter(surfaces(tag))) for tag in (wrong, *(t for t in order if t is not wrong))
        ]
        listed = others[: LISTED - 1]
        listed.insert(int(random.integers(LISTED)), name)
        texts = {key: stuff(product, name, listed) for key, stuff in WORDINGS.items()}
        found.append(Stuffed(wrong, texts))
    return found


def honest(side: Side, scoring: Scoring, plain: Sequence[tuple[Product, Shortlist]]) -> float:
    """The share of right tags in the untouched text that are kept."""
    vocabulary = side.index.vocabulary
    kept = literal = 0
    for product, shortlist in plain:
        mentioned = [vocabulary.tags[at] for at in vocabulary.mentions(product)]
        gold = side.judge.gold(product)
        right = {t.id for t in mentioned if side.judge.item(product, t.name) in gold}
        literal += len(right)
        kept += len(right & scoring.kept(product, shortlist))
    return kept / max(literal, 1)


def measure(name: str, root: Path, *, products: int, seed: int) -> dict[str, dict[str, float]]:
    """By scorer: the share that takes the stuffed tag in each wording, and the honest recall."""
    gold = load_gold(CARDS / name, root)
    with tempfile.TemporaryDirectory() as folder:
        side = prepare(gold, Path(folder), test=products, seed=seed)
        plain = shortlists(side, side.test)
        wrong = stuffed(side, seed=seed)
        lists = {key: shortlists(side, (each.texts[key] for each in wrong)) for key in WORDINGS}
        found = {}
        for way, scoring in scorings(side, gold).items():
            takes = {
                key: sum(
                    each.tag.id in scoring.kept(*found)
                    for each, found in zip(wrong, lists[key], strict=True)
                )
                / len(wrong)
                for key in WORDINGS
            }
            found[way] = takes | {"honest": honest(side, scoring, plain), "of": len(wrong)}
        return found


def main() -> None:
    chosen = options(__doc__, SETS, products=300).parse_args()
    for name in chosen.sets:
        found = measure(name, chosen.root, products=chosen.products, seed=chosen.seed)
        for way, figures in found.items():
            shown = {key: round(value, 3) for key, value in figures.items()}
            sys.stdout.write(f"{name} {way} {json.dumps(shown)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
