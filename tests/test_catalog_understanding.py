"""What was understood of a catalogue, and what looks wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from llmtagger.catalog import CatalogOptions, understand

WOO = "Type,SKU,Name,Published,Categories,Tags\n"


def save(folder: Path, text: str, name: str = "a.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        (
            "a.csv", WOO + "simple,1,Hat,1,Hats,wool\nsimple,2,Cap,1,Hats,wool\n",
            'WooCommerce export: 2 products, tags from "Tags", categories from "Categories"',
        ),
        ("a.txt", "Hat\nCap\n", "list of titles: 2 products"),
        ("a.csv", "id,title\n1,Hat\n", "table: 1 product"),
        (
            "a.jsonl", '{"id": 1, "name": "Hat", "标签": ["a"]}\n',
            'JSON: 1 product, title from "name", tags from "标签"',
        ),
    ],
    ids=["woocommerce", "titles", "table", "jsonl"],
)  # fmt: skip
def test_one_line_says_what_was_understood(tmp_path: Path, name: str, text: str, line: str) -> None:
    assert str(understand(save(tmp_path, text, name))) == line


def rows(tags: Sequence[str]) -> str:
    return WOO + "".join(f'simple,{n},Hat,1,Hats,"{each}"\n' for n, each in enumerate(tags))


@pytest.mark.parametrize(
    ("tags", "oddity"),
    [
        ([""] * 3, 'no product has tags ("Tags" is empty everywhere)'),
        (["wool"] * 40 + [f"only {n}" for n in range(7)], "7 products whose only tag occurs once"),
        (
            [f"this is what our customers say about number {n}, warm" for n in range(30)],
            "30 of 31 tags read like sentences",
        ),
        ([f"SKU-{n}" for n in range(30)], "no two products share a tag"),
    ],
    ids=["none", "once", "sentences", "unshared"],
)
def test_what_looks_wrong_is_said(tmp_path: Path, tags: Sequence[str], oddity: str) -> None:
    oddities = understand(save(tmp_path, rows(tags))).oddities
    assert any(oddity in each for each in oddities), oddities


def test_a_sound_catalogue_has_no_oddities(tmp_path: Path) -> None:
    found = understand(save(tmp_path, rows(["wool, warm", "wool"] * 20)))
    assert (found.products, found.rejected, found.oddities) == (40, 0, ())


def test_rows_that_are_no_products_are_counted(tmp_path: Path) -> None:
    found = understand(save(tmp_path, WOO + "simple,1,,1,,\nsimple,2,Hat,1,,x\n"), CatalogOptions())
    assert (found.products, found.oddities) == (1, ("1 row could not be read as products",))
