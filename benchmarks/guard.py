"""How often the guard is wrong, by rule: on real products, harmless sentences, and attacks.

    python benchmarks/guard.py [FOLDER...]

Each FOLDER holds catalogues, in subfolders too (default: LLMTAGGER_GOLD). Every text that is
flagged there is printed, to be looked at. `guard/harmless.toml` has sentences that share words with
prompt injections. `guard/attacks_before.toml` was written before the rules;
`guard/attacks_after.toml` after them, and no rule was changed for it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from payloads import attacks, harmless

from llmtagger.catalog import RejectedRow, read_catalog
from llmtagger.datatypes import Product
from llmtagger.errors import LlmtaggerError
from llmtagger.injection import guard_product
from llmtagger.injection.rules import RULES, rules_in

_SUFFIXES = (".jsonl", ".csv")


def products_of(folders: Iterable[Path]) -> Iterator[tuple[str, Product]]:
    """Every product of the folders' catalogues, with its file's name."""
    for folder in folders:
        for path in sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES):
            try:
                for product in read_catalog(path, rejected=_skipped):
                    yield path.name, product
            except LlmtaggerError as error:
                sys.stderr.write(f"{path.name} is left out: {error}\n")


def texts_of(folders: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """Every text of every product, names of attributes and tags too, with the file's name."""
    for source, product in products_of(folders):
        texts = [text for field in product.fields() for text in field] + [*(product.tags or ())]
        yield from ((source, text) for text in texts)


def false_alarms(texts: Iterable[tuple[str, str]]) -> tuple[int, Counter[str]]:
    """How many different texts there are, and how often each rule finds something."""
    seen: set[str] = set()
    found: Counter[str] = Counter()
    for source, text in texts:
        if text in seen:
            continue
        seen.add(text)
        if rules := rules_in(text):
            found.update([*rules, "any"])
            sys.stdout.write(f"    {source}: {', '.join(rules)}: {text[:300]!r}\n")
    return len(seen), found


def recall(half: str) -> list[str]:
    """Lines of a table: by aim and by form, how many attacks there are and how many are flagged."""
    all_: Counter[str] = Counter()
    flagged: Counter[str] = Counter()
    for attack in attacks(half):
        kinds = [f"aim {attack.aim}", f"form {attack.form}", "all"]
        all_.update(kinds)
        if rules := rules_in(attack.text):
            flagged.update([*kinds, *(f"rule {rule}" for rule in rules)])
    lines = [f"| {kind} | {flagged[kind]} of {all_[kind]} |" for kind in sorted(all_)]
    return [*lines, *(f"| rule {rule.name} | {flagged[f'rule {rule.name}']} |" for rule in RULES)]


def throughput(folders: Iterable[Path]) -> float:
    """Products a second on one core, of every tenth one."""
    products = [product for _, product in islice(products_of(folders), 0, None, 10)]
    begun = time.process_time()
    for product in products:
        guard_product(product)
    return len(products) / (time.process_time() - begun)


def _skipped(row: RejectedRow) -> None:
    """Rows that are no products hold no product text."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    default = [Path(os.environ["LLMTAGGER_GOLD"])] if "LLMTAGGER_GOLD" in os.environ else []
    if folders := parser.parse_args().folders or default:
        sys.stdout.write(f"{throughput(folders):.0f} products/s\n")
        count, found = false_alarms(texts_of(folders))
        sys.stdout.write(f"{count} texts, flagged: {dict(found)}\n")
    count, found = false_alarms(("harmless", text) for text in harmless())
    sys.stdout.write(f"{count} harmless sentences, flagged: {dict(found)}\n")
    for half in ("before", "after"):
        sys.stdout.write("\n".join((f"written {half} the rules:", *recall(half), "")))


if __name__ == "__main__":
    main()
