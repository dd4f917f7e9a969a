"""What misspelt words cost, and what reading them as mentions wins back.

    python benchmarks/typos.py DATA_ROOT [--set NAME...] [--products 200] [--seed 7]
    python benchmarks/typos.py DATA_ROOT --fit

An index is built of the train side of a gold set. In a share of the words of titles and
descriptions of the test products one letter is then added, dropped, replaced or swapped with its
neighbour (words of five letters or more), or one character replaced by one of the same sound
(Chinese words of two or more). The products are tagged without a model, by the default weights and
by a calibrated scorer: F1 without the signal `misspelt`, and with it.

`--fit` prints the weight of the signal that sets of `default_weights.py` give, all other weights
being what they are. A fourth of the products each has 0, 5, 10 and 20 % of typos.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from default_weights import ROWS, SCORED
from default_weights import SETS as FITTED
from held_out import CARDS, SETTINGS, Scoring, Side, options, prepare, scorings, shortlists

from llmtagger.backends import index_writer
from llmtagger.backends.index_folder import CatalogueIndex
from llmtagger.datatypes import Product
from llmtagger.evaluation import fitting, metrics
from llmtagger.evaluation.gold import GoldSet, load_gold
from llmtagger.evaluation.metrics import Floats
from llmtagger.pipeline import build_tagger
from llmtagger.stages.scoring import COLD, WARM, Weights
from llmtagger.templates import default_template, find_template

SETS = ("shopify_store_freetags_en", "openbg_zh")
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RUNS = re.compile(r"[\u4e00-\u9fff]+|[A-Za-z]{5,}")


def mistyped(product: Product, share: float, random: np.random.Generator) -> Product:
    """The product with typos in a share of its words."""

    def of(text: str) -> str:
        return RUNS.sub(lambda run: "".join(typed(run.group(), share, random)), text)

    return replace(product, title=of(product.title), description=of(product.description))


def typed(run: str, share: float, random: np.random.Generator) -> Iterator[str]:
    """The words of a run of letters or Chinese characters, some with a typo."""
    import rjieba

    for word in rjieba.cut(run) if not run.isascii() else [run]:
        wrong = len(word) > 1 and random.random() < share
        yield (slip if run.isascii() else homophone)(word, random) if wrong else word


def slip(word: str, random: np.random.Generator) -> str:
    """One letter added, dropped, replaced or swapped with the next."""
    at = int(random.integers(len(word) - 1))
    letter = LETTERS[int(random.integers(len(LETTERS)))]
    left, right = word[:at], word[at + 1 :]
    made = (left + letter + word[at:], left + right, left + letter + right)
    swapped = left + word[at + 1] + word[at] + word[at + 2 :]
    return (*made, swapped)[int(random.integers(4))]


def homophone(word: str, random: np.random.Generator) -> str:
    """One character replaced by a common one of the same sound, if there is one."""
    from pypinyin import lazy_pinyin

    at = int(random.integers(len(word)))
    same = [char for char in by_sound()[lazy_pinyin(word[at])[0]] if char != word[at]]
    return word[:at] + same[int(random.integers(len(same)))] + word[at + 1 :] if same else word


@cache
def by_sound() -> defaultdict[str, list[str]]:
    """The 3,755 most common characters (the first level of GB 2312) by their sound."""
    from pypinyin import lazy_pinyin

    found = defaultdict(list)
    for high in range(0xB0, 0xD8):
        for low in range(0xA1, 0xFF if high < 0xD7 else 0xFA):
            char = bytes((high, low)).decode("gb2312")
            found[lazy_pinyin(char)[0]].append(char)
    return found


def deaf(index: CatalogueIndex) -> None:
    """Make an index take no misspelt word for a mention."""
    index.panel = replace(index.panel, speller=None)
    index.experts = index.panel


def counts(side: Side, scoring: Scoring, products: Sequence[Product]) -> Floats:
    """Counts (n, 3) of test products: right, kept, in gold."""
    vocabulary = side.index.vocabulary
    names = {tag.id: tag.name for tag in vocabulary}
    kept, gold = [], []
    for product, shortlist in shortlists(side, products):
        ids = scoring.kept(product, shortlist) & names.keys()
        items = {side.judge.item(product, names[each]) for each in ids}
        kept.append({item for item in items if item is not None})
        gold.append(side.judge.gold(product))
    return metrics.counts(kept, gold)


def measure(name: str, root: Path, *, products: int, seed: int) -> Iterator[str]:
    """Rows of the table."""
    gold = load_gold(CARDS / name, root)
    with tempfile.TemporaryDirectory() as folder:
        side = prepare(gold, Path(folder), test=products, seed=seed)
        found: dict[tuple[str, float, bool], Floats] = {}
        for reads in (True, False):
            if not reads:
                deaf(side.index)
            ways = scorings(side, gold)
            for share in SHARES:
                random = np.random.default_rng(seed)
                typos = [mistyped(product, share, random) for product in side.test]
                for way, scoring in ways.items():
                    found[way, share, reads] = counts(side, scoring, typos)
        boot = metrics.Bootstrap(list(range(len(side.test))), seed=0)
        for way in ways:
            for share in SHARES:
                with_, without = found[way, share, True], found[way, share, False]
                gain = boot.difference(with_, without, metrics.f1)
                value, low, high = (100 * each for each in (gain.value, gain.low, gain.high))
                yield (
                    f"| {name} | {way} | {share:.0%} | {f1(without):.3f} | {f1(with_):.3f} | "
                    f"{value:+.1f} [{low:+.1f}, {high:+.1f}] |"
                )


def f1(each: Floats) -> float:
    """Micro-F1 of counts (n, 3)."""
    return float(metrics.f1(each.sum(axis=0)))


def fit(root: Path, *, seed: int) -> Iterator[str]:
    """The signal's weight where products are labelled, and where none are."""
    kinds: dict[str, list[tuple[Floats, Floats]]] = {"warm": [], "cold": []}
    for name in FITTED:
        gold = load_gold(CARDS / name, root, limit=ROWS)
        with tempfile.TemporaryDirectory() as folder:
            side = prepare(gold, Path(folder), test=SCORED, seed=seed)
            kinds["warm"].append(rows(gold, side, side.index, WARM, seed))
            live = [side.index.product(at) for at in range(len(side.index))]
            nobody = [replace(product, tags=None) for product in live]
            cold = index_writer.build(
                nobody, Path(folder) / "c", side.index.encoder, vocabulary=side.index.vocabulary
            )
            kinds["cold"].append(rows(gold, side, cold, COLD, seed))
        for kind, found in kinds.items():
            x, right = found[-1][0], found[-1][1]
            fired = x[:, 0] > 0
            yield f"{name} {kind}: {fired.sum()} fired, {right[fired].sum():.0f} of them right"
    for kind, found in kinds.items():
        x = np.vstack([each[0] for each in found])
        right = np.concatenate([each[1] for each in found]).astype(bool)
        weights = fitting.fit_logistic(x[:, :1], right, x[:, 1])
        yield f"{kind}: misspelt {weights[0]:.2f}, bias moved by {weights[1]:+.2f}"


def rows(
    gold: GoldSet, side: Side, index: CatalogueIndex, weights: Weights, seed: int
) -> tuple[Floats, Floats]:
    """The signal and the log-odds without it (n, 2), and what is right (n,)."""
    random = np.random.default_rng(seed)
    typos = [
        mistyped(product, SHARES[at % 4], random) for at, product in enumerate(side.test)
    ]  # fmt: skip
    template = find_template(default_template(gold.kind))
    tagger = build_tagger(index, template, SETTINGS, None, leave_out_siblings=True)
    table = fitting.table_of(tagger.tag_all(typos), side.judge, range(len(typos)))
    other = replace(weights, of={**weights.of, "misspelt": (0.0, 0.0)})
    known = fitting.log_odds_of(other, fitting.design(table), table, np.arange(len(table.right)))
    signal = table.values[:, table.names.index("misspelt")]
    return np.stack([signal, known], axis=1), table.right.astype(float)


def main() -> None:
    parser = options(__doc__, SETS, products=200)
    parser.add_argument("--fit", action="store_true")
    chosen = parser.parse_args()
    if chosen.fit:
        lines = fit(chosen.root, seed=chosen.seed)
    else:
        lines = (
            row
            for name in chosen.sets
            for row in measure(name, chosen.root, products=chosen.products, seed=chosen.seed)
        )
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
